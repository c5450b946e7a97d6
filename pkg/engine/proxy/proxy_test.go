// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestMain: in a namespace of their own the tests neither take the machine's ports nor miss them.
func TestMain(m *testing.M) { nstest.Main(m) }

var web = portal.Key{Addr: netip.MustParseAddr("10.100.87.105"), Protocol: service.TCP, Port: 80}

// table is a Table of one portal with the given endpoints.
func table(key portal.Key, endpoints ...netip.AddrPort) portal.Table {
	name := service.PortName{Name: service.Name{Namespace: "default", Name: "webfrontend"}}
	return portal.Table{Portals: map[portal.Key]portal.Portal{key: {Service: name, Endpoints: endpoints}}}
}

// start runs a proxy until the test ends and fails the test if it leaves a goroutine.
func start(t *testing.T, o Options) (p *Proxy, stop func()) {
	t.Helper()
	before := runtime.NumGoroutine()
	p = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var stopped bool
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if active := total(p).Active; active != 0 {
			t.Errorf("%d connections counted as active after the end", active)
		}
	}
	t.Cleanup(func() {
		stop()
		eventually(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
	})
	return p, stop
}

func total(p *Proxy) (sum traffic.Stats) {
	for _, s := range p.Stats() {
		sum.Accepted, sum.Active, sum.Failed = sum.Accepted+s.Accepted, sum.Active+s.Active, sum.Failed+s.Failed
		sum.Retries, sum.BytesIn, sum.BytesOut = sum.Retries+s.Retries, sum.BytesIn+s.BytesIn, sum.BytesOut+s.BytesOut
		sum.Limited += s.Limited
	}
	return sum
}

// apply gives the proxy a table and returns where its only portal listens.
func apply(t *testing.T, p *Proxy, tab portal.Table) string {
	t.Helper()
	return applyTuned(t, p, tab, func(*tuning.Settings) {})
}

// applyTuned is apply with settings that differ from the default.
func applyTuned(t *testing.T, p *Proxy, tab portal.Table, change func(*tuning.Settings)) string {
	t.Helper()
	s := tuning.Default()
	change(&s)
	ports, err := p.Apply(tab, map[service.Name]tuning.Settings{{Namespace: "default", Name: "webfrontend"}: s})
	if err != nil {
		t.Fatal(err)
	}
	for key, port := range ports {
		return netip.AddrPortFrom(loopback(key.Addr), port).String()
	}
	t.Fatal("Apply returned no port")
	return ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(time.Millisecond)
	}
}

// backendTCP serves each connection with f on loopback until the test ends.
func backendTCP(t *testing.T, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); f(c) }() //nolint:errcheck // a test server
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// says answers every connection with its name.
func says(t *testing.T, name string) netip.AddrPort {
	return backendTCP(t, func(c net.Conn) { _, _ = io.WriteString(c, name) })
}

// nobody is an address on loopback that refuses connections.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test server
	return netip.MustParseAddrPort(l.Addr().String())
}

func dialTCP(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// ask connects and returns what the other side says until it closes.
func ask(t *testing.T, addr string) string {
	t.Helper()
	b, err := io.ReadAll(dialTCP(t, addr))
	if err != nil {
		t.Fatalf("read from %s: %v", addr, err)
	}
	return string(b)
}

func TestRoundRobin(t *testing.T) {
	a, b, c := says(t, "a"), says(t, "b"), says(t, "c")
	p, _ := start(t, Options{})
	at := apply(t, p, table(web, a, b, c))
	got := map[string]int{}
	for range 30 {
		got[ask(t, at)]++
	}
	if got["a"] != 10 || got["b"] != 10 || got["c"] != 10 {
		t.Errorf("30 connections to three endpoints went %v", got)
	}
}

func TestEndpointChangeAppliesToNextConnection(t *testing.T) {
	echo := backendTCP(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p, _ := start(t, Options{})
	at := apply(t, p, table(web, echo))
	old := dialTCP(t, at)
	exchange(t, old, "before")
	if again := apply(t, p, table(web, says(t, "new"))); again != at {
		t.Errorf("the proxy port moved from %s to %s", at, again)
	}
	if got := ask(t, at); got != "new" {
		t.Errorf("a new connection reached %q", got)
	}
	exchange(t, old, "a connection under way is left alone")
}

func exchange(t *testing.T, c net.Conn, msg string) {
	t.Helper()
	if _, err := io.WriteString(c, msg); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(msg))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != msg {
		t.Fatalf("sent %q, got %q %v", msg, buf, err)
	}
}

func TestRetriesOnTheNextEndpoint(t *testing.T) {
	dead, alive := nobody(t), says(t, "alive")
	p, _ := start(t, Options{})
	at := applyTuned(t, p, table(web, dead, alive), func(s *tuning.Settings) { s.EjectAfter = 0 })
	for range 10 {
		if got := ask(t, at); got != "alive" {
			t.Fatalf("got %q with one endpoint of two alive", got)
		}
	}
	if s := total(p); s.Retries < 4 || s.Failed != 0 {
		t.Errorf("ten connections with every other endpoint dead: %+v", s)
	}
}

func TestResetsTheClientWhenAllEndpointsRefuse(t *testing.T) {
	p, _ := start(t, Options{})
	at := apply(t, p, table(web, nobody(t)))
	c, err := net.Dial("tcp", at) // the reset may come before Dial returns
	if err == nil {
		_, err = io.ReadAll(c)
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client of a portal with a dead endpoint got %v, want a reset, not an orderly end", err)
	}
	if s := total(p); s.Failed != 1 || s.Retries != 3 {
		t.Errorf("%+v, want one failure after four attempts", s)
	}
}

func TestRefusesWithoutEndpoints(t *testing.T) {
	p, _ := start(t, Options{})
	at := apply(t, p, table(web))
	refused := func(when string) {
		t.Helper()
		// The port is held on loopback only, so ask at another address of this machine's loopback network.
		_, err := net.DialTimeout("tcp", strings.Replace(at, "127.0.0.1", "127.0.0.2", 1), time.Second)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: got %v, want connection refused", when, err)
		}
	}
	refused("a portal that never had endpoints")
	if again := apply(t, p, table(web, says(t, "up"))); again != at {
		t.Errorf("the first endpoint moved the port from %s to %s", at, again)
	}
	if got := ask(t, at); got != "up" {
		t.Errorf("got %q", got)
	}
	if again := apply(t, p, table(web)); again != at {
		t.Errorf("the last endpoint's end moved the port from %s to %s", at, again)
	}
	refused("a portal that lost its endpoints")
	if l, err := net.Listen("tcp4", strings.Replace(at, "127.0.0.1", "0.0.0.0", 1)); err == nil {
		_ = l.Close()
		t.Error("somebody else could take the port of a portal without endpoints")
	}
}

func TestHalfClose(t *testing.T) {
	sum := backendTCP(t, func(c net.Conn) {
		b, _ := io.ReadAll(c) // answers only after the client's end
		_, _ = fmt.Fprintf(c, "%d bytes", len(b))
	})
	p, _ := start(t, Options{})
	c := dialTCP(t, apply(t, p, table(web, sum)))
	if _, err := c.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "1048576 bytes" {
		t.Errorf("got %q %v", b, err)
	}
	eventually(t, "the bytes to be counted", func() bool {
		s := total(p)
		return s.BytesIn == 1<<20 && s.BytesOut == 13 && s.Active == 0
	})
}

func TestPassesAResetOn(t *testing.T) {
	breaks := backendTCP(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1)) // not before the client is connected: its connect would be what is reset
		_, _ = io.WriteString(c, "half of the ans")
		reset(c.(*net.TCPConn))
	})
	p, _ := start(t, Options{})
	c := dialTCP(t, apply(t, p, table(web, breaks)))
	if _, err := io.WriteString(c, "?"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a broken answer %q ended with %v, want a reset", b, err)
	}
}

func TestPortsSurviveARestart(t *testing.T) {
	tab := table(web, says(t, "a"))
	first, stop := start(t, Options{})
	ports, err := first.Apply(tab, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	second, stop := start(t, Options{Ports: ports})
	at := apply(t, second, tab)
	if want := fmt.Sprint("127.0.0.1:", ports[web]); at != want {
		t.Errorf("after a restart the portal is at %s, before at %s", at, want)
	}
	stop()
	taken, err := net.Listen("tcp4", fmt.Sprint("0.0.0.0:", ports[web]))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test server
	third, _ := start(t, Options{Ports: ports})
	if got := ask(t, apply(t, third, tab)); got != "a" {
		t.Errorf("with its old port taken the portal answers %q", got)
	}
}

func TestApplyServesTheRestWhenOnePortalFails(t *testing.T) {
	p, _ := start(t, Options{})
	tab := table(web, says(t, "a"))
	tab.Portals[portal.Key{Addr: web.Addr, Protocol: service.SCTP, Port: 1}] = tab.Portals[web]
	ports, err := p.Apply(tab, nil)
	if err == nil || err.Error() != "open portal SCTP 10.100.87.105:1 for default/webfrontend: the userspace proxy cannot carry SCTP" {
		t.Errorf("error: %v", err)
	}
	if got := ask(t, fmt.Sprint("127.0.0.1:", ports[web])); got != "a" || len(ports) != 1 {
		t.Errorf("the good portal answers %q, ports %v", got, ports)
	}
}

func TestRemovedPortalRefuses(t *testing.T) {
	p, _ := start(t, Options{})
	at := apply(t, p, table(web, says(t, "a")))
	if ports, err := p.Apply(portal.Table{}, nil); err != nil || len(ports) != 0 {
		t.Errorf("empty table: ports %v, %v", ports, err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		_ = c.Close()
		t.Error("a removed portal still accepts")
	}
}

func TestDrain(t *testing.T) {
	echo := backendTCP(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p := New(Options{Drain: time.Minute})
	at := apply(t, p, table(web, echo))
	c := dialTCP(t, at)
	exchange(t, c, "before")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	cancel()
	eventually(t, "new connections to be refused", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	exchange(t, c, "still carried while draining")
	select {
	case <-done:
		t.Fatal("Run returned before the last connection ended")
	default:
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := p.Apply(table(web), nil); err == nil {
		t.Error("Apply after the end opened something")
	}
}

func TestDrainIsBounded(t *testing.T) {
	echo := backendTCP(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p, stop := start(t, Options{Drain: 20 * time.Millisecond})
	c := dialTCP(t, apply(t, p, table(web, echo)))
	exchange(t, c, "never ends by itself")
	stop()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the drain time the client got %v, want a reset", err)
	}
}

func TestManyConnections(t *testing.T) {
	a, b := says(t, "a"), says(t, "b")
	p, _ := start(t, Options{})
	at := apply(t, p, table(web, a, b))
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() {
			for range 25 {
				c, err := net.Dial("tcp", at)
				if err == nil {
					_, err = io.ReadAll(c)
					err = errors.Join(err, c.Close())
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 50 { // the table changes under way
		apply(t, p, table(web, a))
		apply(t, p, table(web, b, a))
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// logTo writes a log for a test to read after the proxy has stopped.
func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
