// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

var dns = portal.Key{Addr: netip.MustParseAddr("10.100.0.10"), Protocol: service.UDP, Port: 53}

// backendUDP answers each packet with its name and the packet.
func backendUDP(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(append([]byte(name), buf[:n]...), from)
		}
	}()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func dialUDP(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// query sends msg until an answer comes: a packet may be lost while a session changes hands.
func query(t *testing.T, c net.Conn, msg []byte) []byte {
	t.Helper()
	buf := make([]byte, maxDatagram)
	for range 50 {
		_, _ = c.Write(msg) // may tell of an ICMP error for an earlier packet
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(buf); err == nil {
			return buf[:n]
		}
	}
	t.Fatalf("no answer from %s", c.RemoteAddr())
	return nil
}

func TestUDPKeepsAClientOnItsEndpoint(t *testing.T) {
	a, b := backendUDP(t, "a"), backendUDP(t, "b")
	p, _ := start(t, Options{})
	at := apply(t, p, table(dns, a, b))
	got := map[byte]int{}
	for range 4 {
		c := dialUDP(t, at)
		first := query(t, c, []byte("?"))[0]
		for range 5 {
			if again := query(t, c, []byte("?"))[0]; again != first {
				t.Errorf("one client's packets went to %c and %c", first, again)
			}
		}
		got[first]++
	}
	if got['a'] != 2 || got['b'] != 2 {
		t.Errorf("four clients of two endpoints went %v", got)
	}
}

func TestUDPAnswersFromTheAddressThatWasAsked(t *testing.T) {
	p, _ := start(t, Options{})
	at := apply(t, p, table(dns, backendUDP(t, "a")))
	// A connected socket takes answers only from the address it sent to; 127.0.0.9 is not the address that
	// the kernel would choose as source.
	c := dialUDP(t, strings.Replace(at, "127.0.0.1", "127.0.0.9", 1))
	if got := query(t, c, []byte("?")); string(got) != "a?" {
		t.Errorf("got %q", got)
	}
}

func TestUDPCarriesLargeAndEmptyDatagrams(t *testing.T) {
	p, _ := start(t, Options{})
	c := dialUDP(t, apply(t, p, table(dns, backendUDP(t, "a"))))
	for _, n := range []int{0, 1, 1472, 9000, 60000} {
		msg := bytes.Repeat([]byte("x"), n)
		if got := query(t, c, msg); string(got) != "a"+string(msg) {
			t.Errorf("a datagram of %d bytes came back as %d, want one more", n, len(got))
		}
	}
}

func TestUDPLeavesARemovedEndpoint(t *testing.T) {
	a, b := backendUDP(t, "a"), backendUDP(t, "b")
	p, _ := start(t, Options{})
	at := apply(t, p, table(dns, a))
	c := dialUDP(t, at)
	if got := query(t, c, []byte("?")); string(got) != "a?" {
		t.Fatalf("got %q", got)
	}
	apply(t, p, table(dns, b))
	if got := query(t, c, []byte("?")); string(got) != "b?" {
		t.Errorf("a busy client stays on an endpoint that is gone: %q", got)
	}
}

func TestUDPLeavesARefusingEndpoint(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(pc.LocalAddr().String())
	_ = pc.Close()
	p, _ := start(t, Options{})
	at := apply(t, p, table(dns, dead, backendUDP(t, "b")))
	for range 4 {
		if got := query(t, dialUDP(t, at), []byte("?")); string(got) != "b?" {
			t.Errorf("got %q", got)
		}
	}
}

func TestUDPSessionsEnd(t *testing.T) {
	p, _ := start(t, Options{UDPSessions: 2})
	at := applyTuned(t, p, table(dns, backendUDP(t, "a")), func(s *tuning.Settings) { s.UDPIdle = 20 * time.Millisecond })
	for range 3 {
		query(t, dialUDP(t, at), []byte("?")) // the third waits until one of the others is idle
	}
	eventually(t, "idle sessions to end", func() bool { return total(p).Active == 0 })
	if s := total(p); s.Accepted < 3 {
		t.Errorf("%+v", s)
	}
}

// When there are as many clients as there may be, the one that was silent for longest makes room, and the log says so once.
func TestUDPClientsMakeRoom(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     Options
		limit int
	}{
		{"the proxy's limit", Options{UDPSessions: 2}, 0},
		{"the service's own, which is lower", Options{UDPSessions: 100}, 2},
		{"the service's own, which is higher", Options{UDPSessions: 1}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer // only the socket's goroutine writes, and it is asked when that has ended
			tt.o.Log = slog.New(slog.NewTextHandler(&log, nil))
			p, stop := start(t, tt.o)
			at := applyTuned(t, p, table(dns, backendUDP(t, "a"), backendUDP(t, "b")), func(s *tuning.Settings) {
				s.UDPIdle, s.MaxConns = time.Hour, tt.limit
			})
			busy := dialUDP(t, at)
			first := query(t, busy, []byte("?"))[0]
			for range 5 {
				query(t, dialUDP(t, at), []byte("?"))
				if again := query(t, busy, []byte("?"))[0]; again != first {
					t.Errorf("a client that sends lost its endpoint")
				}
			}
			eventually(t, "the others' sessions to end", func() bool { return total(p).Active == 2 })
			if s := total(p); s.Accepted != 6 || s.Limited != 4 || s.Failed != 0 {
				t.Errorf("%+v", s)
			}
			stop()
			if n := strings.Count(log.String(), "too many UDP clients"); n != 1 {
				t.Errorf("said %d times:\n%s", n, log.String())
			}
		})
	}
}

// Who lies in none of the source ranges meets silence, and is counted.
func TestUDPSourceRanges(t *testing.T) {
	for _, tt := range []struct {
		from    string
		answers bool
	}{{"127.0.0.0/8", true}, {"10.0.0.0/8", false}} {
		p, stop := start(t, Options{})
		tab := table(dns, backendUDP(t, "a"))
		one := tab.Portals[dns]
		one.Sources = []netip.Prefix{netip.MustParsePrefix(tt.from)}
		tab.Portals[dns] = one
		c := dialUDP(t, apply(t, p, tab))
		if tt.answers {
			query(t, c, []byte("?"))
		} else {
			if _, err := c.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the packet to be counted", func() bool { return total(p).Limited == 1 })
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := c.Read(make([]byte, 10)); err == nil {
				t.Errorf("from none of %s: an answer of %d bytes", tt.from, n)
			}
		}
		if s := total(p); (s.Accepted == 1) != tt.answers {
			t.Errorf("from %s: %+v", tt.from, s)
		}
		stop()
	}
}

func TestUDPOverIPv6(t *testing.T) {
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close() //nolint:errcheck // a test server
	key := dns
	key.Addr = netip.MustParseAddr("fd00::10")
	p, _ := start(t, Options{})
	c := dialUDP(t, apply(t, p, table(key, backendUDP(t, "a"))))
	if got := query(t, c, []byte("?")); string(got) != "a?" {
		t.Errorf("got %q", got)
	}
}
