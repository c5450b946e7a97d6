// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// paths are the ways to an echo server on loopback: ours, the plainest proxy that Go can write, and none.
func paths(b *testing.B) map[string]string {
	b.Helper()
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = echo.Close() })
	go accept(echo, func(c net.Conn) { _, _ = io.Copy(c, c) })
	plain, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = plain.Close() })
	go accept(plain, func(c net.Conn) {
		up, err := net.Dial("tcp4", echo.Addr().String())
		if err != nil {
			return
		}
		defer up.Close() //nolint:errcheck // a benchmark
		go func() {
			_, _ = io.Copy(up, c)
			_ = up.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(c, up)
	})
	p := New(Options{})
	ports, err := p.Apply(table(web, netip.MustParseAddrPort(echo.Addr().String())), nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	ours := netip.AddrPortFrom(loopback(web.Addr), ports[web]).String()
	return map[string]string{"portald": ours, "plain": plain.Addr().String(), "direct": echo.Addr().String()}
}

func accept(l net.Listener, f func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); f(c) }() //nolint:errcheck // a benchmark
	}
}

func eachPath(b *testing.B, f func(b *testing.B, addr string)) {
	at := paths(b)
	for _, name := range []string{"direct", "plain", "portald"} {
		b.Run(name, func(b *testing.B) { f(b, at[name]) })
	}
}

// BenchmarkConnection: connect, a byte there and back, close. Each leaves an ephemeral port in TIME_WAIT, or two: with
// -benchtime over a second they run out.
func BenchmarkConnection(b *testing.B) {
	eachPath(b, func(b *testing.B, addr string) {
		buf := make([]byte, 1)
		for b.Loop() {
			c, err := net.Dial("tcp4", addr)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				b.Fatal(err)
			}
			if all, err := io.ReadAll(c); err != nil || len(all) != 1 {
				b.Fatal(all, err)
			}
			_ = c.Close()
		}
	})
}

// BenchmarkRoundTrip: a byte there and back on a warm connection.
func BenchmarkRoundTrip(b *testing.B) { benchEcho(b, 1) }

// BenchmarkBulk: a MiB there and back on a warm connection.
func BenchmarkBulk(b *testing.B) { benchEcho(b, 1<<20) }

func benchEcho(b *testing.B, size int) {
	eachPath(b, func(b *testing.B, addr string) {
		c, err := net.Dial("tcp4", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // a benchmark
		out, in := make([]byte, size), make([]byte, size)
		b.SetBytes(int64(2 * size))
		for b.Loop() {
			go func() { _, _ = c.Write(out) }()
			if _, err := io.ReadFull(c, in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// following is a Memo of n services without endpoints (a port is held, nothing is dialled) and their Table.
func following(n int) (*portal.Memo, portal.Table) {
	m, d := portal.NewMemo(portal.Options{}), service.Delta{}
	for i := range n {
		d[service.Name{Namespace: "default", Name: fmt.Sprint(i)}] = numbered(i, 80)
	}
	return m, m.Update(d)
}

// numbered is service i at that port.
func numbered(i int, port uint16) *service.State {
	return &service.State{Service: service.Service{
		Name: service.Name{Namespace: "default", Name: fmt.Sprint(i)}, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)})},
		Ports: []service.Port{{Protocol: service.TCP, Port: port}},
	}, Endpoints: make([][]service.Endpoint, 1)}
}

// BenchmarkApply: one service of ten thousand gets an endpoint, and loses it.
func BenchmarkApply(b *testing.B) {
	m, tab := following(10000)
	p := New(Options{})
	if _, err := p.Apply(tab, nil); err != nil {
		b.Skipf("cannot hold ten thousand ports here: %v", err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		st := numbered(0, 80)
		if n%2 == 0 {
			st.Endpoints[0] = []service.Endpoint{{Addr: netip.MustParseAddrPort("10.10.10.2:80"), Ready: true, Serving: true}}
		}
		if _, err := p.Apply(m.Update(service.Delta{st.Service.Name: st}), nil); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_ = p.Run(ctx)
}

// TestApplyLooksAtWhatChanged: what one service costs does not hang on how many there are.
func TestApplyLooksAtWhatChanged(t *testing.T) {
	m, tab := following(300)
	p, stop := start(t, Options{})
	defer stop()
	before, err := p.Apply(tab, nil)
	if err != nil || len(before) != 300 {
		t.Fatal(len(before), err)
	}
	other := service.Name{Namespace: "default", Name: "7"}
	n := 0
	if got := testing.AllocsPerRun(20, func() {
		st := numbered(7, 80)
		if n++; n%2 == 0 {
			st.Endpoints[0] = []service.Endpoint{{Addr: netip.MustParseAddrPort("10.10.10.2:80"), Ready: true, Serving: true}}
		}
		if _, err := p.Apply(m.Update(service.Delta{other: st}), nil); err != nil {
			t.Fatal(err)
		}
	}); got > 250 {
		t.Errorf("%.0f allocations for one service of 300", got)
	}
	after, err := p.Apply(m.Update(service.Delta{other: numbered(7, 81), {Namespace: "default", Name: "8"}: nil}), nil)
	if err != nil || len(after) != 299 || len(before) != 300 {
		t.Fatalf("%d ports, %d before: %v", len(after), len(before), err)
	}
	for key, port := range after {
		if key.Port == 80 && before[key] != port {
			t.Errorf("%s has moved from %d to %d", key, before[key], port)
		}
	}
}
