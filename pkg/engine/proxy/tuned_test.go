// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

func TestHeader(t *testing.T) {
	c4, d4 := netip.MustParseAddrPort("10.10.10.2:40000"), netip.MustParseAddrPort("10.100.87.105:80")
	c6, d6 := netip.MustParseAddrPort("[fd00::2]:40000"), netip.MustParseAddrPort("[fd00:100::5]:80")
	if got, want := string(header(1, c4, d4)), "PROXY TCP4 10.10.10.2 10.100.87.105 40000 80\r\n"; got != want {
		t.Errorf("v1: got %q, want %q", got, want)
	}
	if got, want := string(header(1, c6, d6)), "PROXY TCP6 fd00::2 fd00:100::5 40000 80\r\n"; got != want {
		t.Errorf("v1: got %q, want %q", got, want)
	}
	const magic = "0d0a0d0a000d0a515549540a"
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{header(2, c4, d4), magic + "2111000c" + "0a0a0a02" + "0a645769" + "9c40" + "0050"},
		{header(2, c6, d6), magic + "21210024" + "fd000000000000000000000000000002" + "fd000100000000000000000000000005" + "9c40" + "0050"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("v2: got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestProxyProtocolReachesTheEndpoint(t *testing.T) {
	tells := backendTCP(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	p, _ := start(t, Options{})
	at := applyTuned(t, p, table(web, tells), func(s *tuning.Settings) { s.ProxyProtocol = 1 })
	c := dialTCP(t, at)
	want := string(header(1, netip.MustParseAddrPort(c.LocalAddr().String()), netip.AddrPortFrom(web.Addr, web.Port))) + "hello"
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != want {
		t.Errorf("the endpoint read %q (%v), want %q", b, err, want)
	}
}

func TestLimits(t *testing.T) {
	echo := backendTCP(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	for _, tt := range []struct {
		name   string
		o      Options
		change func(*tuning.Settings)
	}{
		{"of one service", Options{}, func(s *tuning.Settings) { s.MaxConns = 2 }},
		{"of the whole proxy", Options{MaxConns: 2}, func(*tuning.Settings) {}},
	} {
		p, _ := start(t, tt.o)
		at := applyTuned(t, p, table(web, echo), tt.change)
		a, b := dialTCP(t, at), dialTCP(t, at)
		exchange(t, a, "first")
		exchange(t, b, "second")
		c, err := net.Dial("tcp", at)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the third connection got %v, want a reset", tt.name, err)
		}
		if s := p.Stats()[web]; s.Limited != 1 {
			t.Errorf("%s: %+v", tt.name, s)
		}
		_ = a.Close()
		eventually(t, "a place to come free", func() bool { return total(p).Active == 1 })
		exchange(t, dialTCP(t, at), "third again")
	}
}

func TestADeadEndpointIsLeftAlone(t *testing.T) {
	dead, alive := nobody(t), says(t, "alive")
	p, _ := start(t, Options{})
	at := applyTuned(t, p, table(web, dead, alive), func(s *tuning.Settings) { s.EjectAfter, s.EjectFor = 2, time.Hour })
	for range 20 {
		if got := ask(t, at); got != "alive" {
			t.Fatalf("got %q", got)
		}
	}
	s := p.Stats()[web]
	if s.Retries != 2 || s.Ejected != 1 || stateOf(s, dead) != "resting" || stateOf(s, alive) != "up" {
		t.Errorf("%+v, want two retries and then none", s)
	}
}

func stateOf(s traffic.Stats, addr netip.AddrPort) traffic.State {
	for _, e := range s.Endpoints {
		if e.Addr == addr {
			return e.State
		}
	}
	return "unlisted"
}

func TestAffinity(t *testing.T) {
	p, _ := start(t, Options{})
	tab := table(web, says(t, "a"), says(t, "b"), says(t, "c"))
	one := tab.Portals[web]
	one.Affinity = time.Hour
	tab.Portals[web] = one
	at := apply(t, p, tab)
	first := ask(t, at)
	for range 10 {
		if got := ask(t, at); got != first {
			t.Fatalf("one client came to %q and %q", first, got)
		}
	}
}

// TestChecks: every kind of check takes an endpoint out and brings it back.
func TestChecks(t *testing.T) {
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /grpc.health.v1.Health/Check", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		status := byte(1) // SERVING
		if sick.Load() {
			status = 2 // NOT_SERVING
		}
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 0x08, status})
		w.Header().Set("Grpc-Status", "0")
	})
	well := http.NewServeMux()
	well.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	well.HandleFunc("GET /who", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })
	well.HandleFunc("POST /grpc.health.v1.Health/Check", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 0x08, 1})
		w.Header().Set("Grpc-Status", "0")
	})
	for _, kind := range []tuning.Check{tuning.TCPCheck, tuning.HTTPCheck, tuning.GRPCCheck} {
		t.Run(string(kind), func(t *testing.T) {
			sick.Store(false)
			addr, other := nobody(t).String(), nobody(t)
			stop := serveHTTP(t, addr, mux)
			serveHTTP(t, other.String(), well)
			p, _ := start(t, Options{})
			tab := table(web, netip.MustParseAddrPort(addr), other)
			settings := func(s *tuning.Settings) {
				s.Check, s.CheckPath, s.CheckEvery, s.CheckTimeout = kind, "/ready", 5*time.Millisecond, 5*time.Second
				s.CheckFailures, s.CheckPasses = 2, 2
			}
			at := applyTuned(t, p, tab, settings)
			state := func() traffic.State { return stateOf(p.Stats()[web], netip.MustParseAddrPort(addr)) }
			if kind == tuning.TCPCheck {
				stop()
			}
			sick.Store(true)
			eventually(t, "the endpoint to be down", func() bool { return state() == "down" })
			for range 4 {
				if got := get(t, "http://"+at+"/who"); got != "other" {
					t.Errorf("with one endpoint down got %q", got)
				}
			}
			sick.Store(false)
			if kind == tuning.TCPCheck {
				serveHTTP(t, addr, mux)
			}
			eventually(t, "the endpoint to be up", func() bool { return state() == "up" })
			apply(t, p, table(web)) // the checks end with the endpoint, or the test's end would wait for them
		})
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read whole
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func serveHTTP(t *testing.T, addr string, h http.Handler) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = s.Serve(l) }()
	stop = func() { _ = s.Close() }
	t.Cleanup(stop)
	return stop
}

func TestALogLinePerChangeNotPerConnection(t *testing.T) {
	var log strings.Builder
	p, stop := start(t, Options{Log: logTo(&log)})
	at := applyTuned(t, p, table(web, nobody(t)), func(s *tuning.Settings) { s.EjectAfter = 0 })
	for range 5 {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_, _ = io.ReadAll(c)
			_ = c.Close()
		}
	}
	eventually(t, "five failures", func() bool { return total(p).Failed == 5 })
	apply(t, p, table(web, says(t, "a")))
	ask(t, at)
	p.fronts[web].failed.Store(time.Now().Add(-calm).UnixNano()) // the failures were long ago
	ask(t, at)
	ask(t, at)
	stop()
	if got := strings.Count(log.String(), "cannot connect"); got != 1 {
		t.Errorf("five failures made %d lines:\n%s", got, log.String())
	}
	if got := strings.Count(log.String(), "can connect again"); got != 1 {
		t.Errorf("two successes made %d lines:\n%s", got, log.String())
	}
}

func TestWantOfPortsIsNotTheEndpointsFault(t *testing.T) {
	for _, tt := range []struct {
		err  error
		ours bool
	}{
		{&net.OpError{Op: "dial", Err: syscall.EADDRNOTAVAIL}, true},
		{&net.OpError{Op: "dial", Err: syscall.EMFILE}, true},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, false},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, false},
	} {
		if got := ours(tt.err); got != tt.ours {
			t.Errorf("%v: ours = %v", tt.err, got)
		}
	}
}

// TestWhereClientsAre: external traffic policy Local gives others than this node's clients fewer endpoints or none, and
// source ranges keep some away.
func TestWhereClientsAre(t *testing.T) {
	near, far := says(t, "near"), says(t, "far")
	here := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, tt := range []struct {
		name   string
		change func(*portal.Portal)
		inside []netip.Prefix
		want   string
	}{
		{"a client on this node has all endpoints", func(p *portal.Portal) { p.Outside = &portal.Choice{} }, here, "near far"},
		{"others have theirs", func(p *portal.Portal) { p.Outside = &portal.Choice{Endpoints: []netip.AddrPort{near}} }, elsewhere, "near near"},
		{"others may have none", func(p *portal.Portal) { p.Outside = &portal.Choice{} }, elsewhere, "reset reset"},
		{"who may come comes", func(p *portal.Portal) { p.Sources = here }, here, "near far"},
		{"who may not is sent away", func(p *portal.Portal) { p.Sources = elsewhere }, here, "reset reset"},
	} {
		p, stop := start(t, Options{})
		tab := table(web, near, far)
		one := tab.Portals[web]
		tt.change(&one)
		tab.Portals[web], tab.Here = one, tt.inside
		at := apply(t, p, tab)
		var got []string
		for range 2 {
			answer := "reset"
			if c, err := net.Dial("tcp", at); err == nil {
				if b, err := io.ReadAll(c); err == nil {
					answer = string(b)
				}
				_ = c.Close()
			}
			got = append(got, answer)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, s, tt.want)
		}
		stop()
	}
}

// A dial gives up when its time is over, though nobody answers at all.
func TestDialGivesUp(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test server
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }) // one connection waits to be accepted, the next SYN is dropped
	}
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(l.Addr().String())
	for range 5 {
		began := time.Now()
		c, err := dial(t.Context(), to, 100*time.Millisecond)
		if err != nil {
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %s to give up: %v", took, err)
			}
			return
		}
		defer c.Close() //nolint:errcheck // it fills the queue
	}
	t.Error("everything was answered")
}
