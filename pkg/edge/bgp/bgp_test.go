// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// The tests speak BGP on port 179 of loopback addresses, in a namespace that nobody else sees.
func TestMain(m *testing.M) { nstest.Main(m) }

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

func loopback(t *testing.T) {
	t.Helper()
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	nstest.Run(t, h, "ip", "link", "set", "lo", "up")
}

// running is a speaker with its log and its events.
type running struct {
	*Speaker
	stop func()

	mu     sync.Mutex
	events []string
}

// run starts a speaker that announces prefixes from the start.
func run(t *testing.T, cfg Config, prefixes ...string) *running {
	t.Helper()
	r := &running{}
	r.Speaker = New(cfg, slog.New(slog.DiscardHandler), func(s Session) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, fmt.Sprintf("%s %s %s", s.Peer, s.State, s.Problem))
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	<-r.Started()
	announce(t, r, prefixes...)
	return r
}

func (r *running) said(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(strings.Join(r.events, "\n"), text)
}

// within polls until ok and returns how long it took.
func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

func (r *running) has(prefix, nexthop string) bool {
	for _, l := range r.Learned() {
		if l.Prefix == pfx(prefix) && slices.ContainsFunc(l.Via, func(v route.Via) bool { return v.NextHop == addr(nexthop) }) {
			return true
		}
	}
	return false
}

func node(n int, peers ...Peer) Config {
	a := netip.AddrFrom4([4]byte{127, 0, 0, byte(n)})
	return Config{ASN: 4200000000 + uint32(n), RouterID: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), LocalAddress: a, Peers: peers}
}

func mls() Config {
	c := node(1)
	c.ASN, c.Listen, c.Transit = 64512, []netip.Prefix{pfx("127.0.0.0/24")}, []route.Accept{route.AcceptAll(pfx("10.10.0.0/16"))}
	return c
}

func own(prefixes ...string) (out []route.Announcement) {
	for _, p := range prefixes {
		out = append(out, route.Announcement{Prefix: pfx(p), Why: "pod subnet"})
	}
	return out
}

func announce(t *testing.T, r *running, prefixes ...string) {
	t.Helper()
	if err := r.Announce(own(prefixes...)); err != nil {
		t.Fatal(err)
	}
}

func TestTwoNodesBehindARouter(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	n2, n3 := run(t, node(2, Peer{Name: "127.0.0.1"})), run(t, node(3, Peer{Name: "127.0.0.1"}))
	announce(t, n2, "10.10.20.0/24", "10.99.0.0/24") // the router does not pass the second on
	announce(t, n3, "10.10.30.0/24")
	took := within(t, 3*time.Second, "routes everywhere", func() bool {
		return m.has("10.10.20.0/24", "127.0.0.2") && m.has("10.99.0.0/24", "127.0.0.2") &&
			n2.has("10.10.30.0/24", "127.0.0.1") && n3.has("10.10.20.0/24", "127.0.0.1")
	})
	t.Logf("routes everywhere after %s", took)
	within(t, 3*time.Second, "End-of-RIB from the router", func() bool { return n2.Synced() && n3.Synced() })
	if n3.has("10.99.0.0/24", "127.0.0.1") {
		t.Error("the router passed on what it does not accept")
	}
	sessions, err := n2.Sessions(t.Context())
	if err != nil || len(sessions) != 1 {
		t.Fatalf("%v %v", sessions, err)
	}
	got := sessions[0]
	got.Since, got.Synced = time.Time{}, false
	want := Session{Peer: "127.0.0.1", Address: addr("127.0.0.1"), ASN: 64512, RouterID: addr("10.0.0.1"), State: Established, In: 1, Out: 2}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("session (-want +got):\n%s", diff)
	}
	announce(t, n2, "10.10.20.0/24") // idempotent, and withdraws the other
	within(t, time.Second, "withdrawn", func() bool { return !m.has("10.99.0.0/24", "127.0.0.2") })
	n3.stop()
	took = within(t, time.Second, "a clean stop withdraws at once", func() bool {
		return !m.has("10.10.30.0/24", "127.0.0.3") && !n2.has("10.10.30.0/24", "127.0.0.1")
	})
	t.Logf("withdrawn after %s", took)
	n3 = run(t, node(3, Peer{Name: "127.0.0.1"}))
	announce(t, n3, "10.10.30.0/24")
	within(t, 3*time.Second, "back again", func() bool { return n2.has("10.10.30.0/24", "127.0.0.1") })
}

func TestWhatIsRefusedIsNotPassedOn(t *testing.T) {
	loopback(t)
	m := run(t, mls(), "10.10.5.0/24")
	if err := m.Withhold(route.Policy{Own: []netip.Prefix{pfx("10.10.5.0/24")}}.Never()); err != nil {
		t.Fatal(err)
	}
	n2, n3 := run(t, node(2, Peer{Name: "127.0.0.1"})), run(t, node(3, Peer{Name: "127.0.0.1"}))
	announce(t, n2, "10.10.5.128/25", "10.10.20.0/24")
	within(t, 3*time.Second, "routes", func() bool {
		return m.has("10.10.5.128/25", "127.0.0.2") && n3.has("10.10.5.0/24", "127.0.0.1") && n3.has("10.10.20.0/24", "127.0.0.1")
	})
	if n3.has("10.10.5.128/25", "127.0.0.1") {
		t.Error("a part of the router's own pod subnet is passed on")
	}
	if err := m.Withhold(nil); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "another policy", func() bool { return n3.has("10.10.5.128/25", "127.0.0.1") })
}

func TestANodeDoesNotPassRoutesOn(t *testing.T) {
	loopback(t)
	left, right := mls(), mls()
	right.LocalAddress, right.RouterID, right.ASN = addr("127.0.0.4"), addr("10.0.0.4"), 64513
	l, r := run(t, left), run(t, right)
	n := run(t, node(2, Peer{Name: "127.0.0.1"}, Peer{Name: "127.0.0.4"}))
	announce(t, l, "10.10.10.0/24")
	announce(t, n, "10.10.20.0/24")
	within(t, 3*time.Second, "routes", func() bool {
		return n.has("10.10.10.0/24", "127.0.0.1") && l.has("10.10.20.0/24", "127.0.0.2") && r.has("10.10.20.0/24", "127.0.0.2")
	})
	if len(r.Learned()) != 1 {
		t.Errorf("the node passed a route on: %v", r.Learned())
	}
}

func TestEqualPaths(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	n2, n3 := run(t, node(2, Peer{Name: "127.0.0.1"})), run(t, node(3, Peer{Name: "127.0.0.1"}))
	announce(t, n2, "10.10.50.0/24")
	announce(t, n3, "10.10.50.0/24")
	within(t, 3*time.Second, "both", func() bool { return m.has("10.10.50.0/24", "127.0.0.2") && m.has("10.10.50.0/24", "127.0.0.3") })
	m.Take()
	announce(t, n2)
	within(t, time.Second, "one left", func() bool { return !m.has("10.10.50.0/24", "127.0.0.2") })
	got := m.Take()
	want := []route.Learned{{Prefix: pfx("10.10.50.0/24"), Via: []route.Via{{NextHop: addr("127.0.0.3"), Peer: addr("127.0.0.3")}}}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("changed: %v, want %v", got, want)
	}
}

func TestTheRouterStartsLast(t *testing.T) {
	loopback(t)
	n := run(t, node(2, Peer{Name: "127.0.0.1"}))
	announce(t, n, "10.10.20.0/24")
	within(t, 3*time.Second, "refused", func() bool { return n.said("connection refused") })
	m := run(t, mls())
	took := within(t, 3*time.Second, "route", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") })
	t.Logf("after %s", took)
}

func TestAnUnknownNameIsTriedUntilItResolves(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	n := run(t, node(2, Peer{Name: "mls.test.invalid"}))
	within(t, 8*time.Second, "unresolved", func() bool { return n.said("mls.test.invalid unresolved lookup mls.test.invalid") })
	hosts := t.TempDir() + "/hosts"
	nstest.Sh(t, here(t), "echo 127.0.0.1 mls.test.invalid >"+hosts+"; mount --bind "+hosts+" /etc/hosts")
	t.Cleanup(func() { nstest.Sh(t, here(t), "umount /etc/hosts") })
	within(t, 12*time.Second, "established", func() bool { return n.said("mls.test.invalid established") })
	_ = m
}

func here(t *testing.T) *netns.Handle {
	t.Helper()
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestPortTaken(t *testing.T) {
	loopback(t)
	l, err := net.Listen("tcp4", "127.0.0.2:179")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = New(node(2), nil, nil).Run(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "port 179 is taken by another program; `ss -ltnp sport = :179` names it") {
		t.Errorf("got %v", err)
	}
}

func TestWrongASN(t *testing.T) {
	loopback(t)
	run(t, mls())
	n := run(t, node(2, Peer{Name: "127.0.0.1", Settings: Settings{ASN: 64999}}))
	within(t, 3*time.Second, "problem", func() bool { return n.said("the peer's ASN is not the one configured") })
}

func TestSetPeers(t *testing.T) {
	loopback(t)
	left, right := mls(), mls()
	right.LocalAddress, right.RouterID, right.ASN = addr("127.0.0.4"), addr("10.0.0.4"), 64513
	l, r := run(t, left, "10.10.1.0/24"), run(t, right, "10.10.4.0/24")
	n := run(t, node(2, Peer{Name: "127.0.0.1"}), "10.10.20.0/24")
	within(t, 3*time.Second, "left", func() bool { return n.has("10.10.1.0/24", "127.0.0.1") })
	n.SetPeers([]Peer{{Name: "127.0.0.1"}, {Name: "127.0.0.4"}})
	within(t, 3*time.Second, "right, too", func() bool { return n.has("10.10.4.0/24", "127.0.0.4") && r.has("10.10.20.0/24", "127.0.0.2") })
	if !l.has("10.10.20.0/24", "127.0.0.2") || l.said("idle") {
		t.Errorf("the session that stays was disturbed: %v", l.events)
	}
	n.SetPeers([]Peer{{Name: "127.0.0.4"}})
	within(t, 3*time.Second, "only right", func() bool {
		return !n.has("10.10.1.0/24", "127.0.0.1") && n.has("10.10.4.0/24", "127.0.0.4") && !l.has("10.10.20.0/24", "127.0.0.2")
	})
}

func TestPasswordAndGTSM(t *testing.T) {
	loopback(t)
	router := mls()
	router.ListenAs.Password = "secret"
	run(t, router)
	good := run(t, node(2, Peer{Name: "127.0.0.1", Settings: Settings{Password: "secret", GTSM: true}}))
	within(t, 3*time.Second, "established", func() bool { return good.said("established") })
	bad := run(t, node(3, Peer{Name: "127.0.0.1", Settings: Settings{Password: "wrong"}}))
	within(t, 10*time.Second, "silence", func() bool { return bad.said("i/o timeout") })
	if bad.said("established") {
		t.Error("a wrong password is good enough")
	}
}

func TestTooManyPrefixes(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	cfg := node(2, Peer{Name: "127.0.0.1"})
	cfg.Peers[0].MaxPrefixes = 3
	n := run(t, cfg)
	announce(t, m, "10.10.1.0/24", "10.10.2.0/24", "10.10.3.0/24")
	within(t, 3*time.Second, "three prefixes", func() bool { return len(n.Learned()) == 3 })
	announce(t, m, "10.10.1.0/24", "10.10.2.0/24", "10.10.3.0/24", "10.10.4.0/24")
	within(t, 3*time.Second, "cut off", func() bool {
		return n.said("the peer sent more than 3 prefixes; cut off for a minute") && len(n.Learned()) == 0
	})
}

// TestTooManyPrefixesAtOnce cuts a peer off while most of what it sent is still under way.
func TestTooManyPrefixesAtOnce(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	var all []route.Announcement
	for i := range 30_000 {
		a := netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)})
		all = append(all, route.Announcement{Prefix: netip.PrefixFrom(a, 32)})
	}
	if err := m.Announce(all); err != nil {
		t.Fatal(err)
	}
	cfg := node(2, Peer{Name: "127.0.0.1"})
	cfg.Peers[0].MaxPrefixes = 1000
	n := run(t, cfg)
	held := func() int {
		return len(n.Learned())
	}
	within(t, 10*time.Second, "cut off", func() bool { return n.said("the peer sent more than 1000 prefixes") })
	within(t, 10*time.Second, "nothing is left of it", func() bool {
		live := false
		n.sessions.Look(addr("127.0.0.1"), func(e *session.Entry) { live = e.Live })
		return !live && held() == 0
	})
}

func TestHandOverKeepsTheRoutes(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	n := run(t, node(2, Peer{Name: "127.0.0.1"}), "10.10.20.0/24", "10.10.21.0/24")
	within(t, 3*time.Second, "routes", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") && m.has("10.10.21.0/24", "127.0.0.2") })
	m.Take()
	n.HandOver()
	n.stop()
	within(t, 3*time.Second, "session lost", func() bool { return m.said("its routes are kept while it may be restarting") })
	cfg := node(2, Peer{Name: "127.0.0.1"})
	cfg.Restarting = true
	run(t, cfg, "10.10.20.0/24")
	within(t, 10*time.Second, "what was withdrawn meanwhile is swept", func() bool { return !m.has("10.10.21.0/24", "127.0.0.2") })
	for _, l := range m.Take() {
		if l.Prefix == pfx("10.10.20.0/24") && len(l.Via) != 1 {
			t.Errorf("the route that stayed was withdrawn meanwhile")
		}
	}
	if !m.has("10.10.20.0/24", "127.0.0.2") {
		t.Error("the route that is announced again went away")
	}
}

// TestMalformedMessages sends what has killed BGP speakers before. The session may go, the process and others may not.
func TestMalformedMessages(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	good := run(t, node(3, Peer{Name: "127.0.0.1"}))
	announce(t, good, "10.10.30.0/24")
	within(t, 3*time.Second, "route", func() bool { return m.has("10.10.30.0/24", "127.0.0.3") })
	nlri := []byte{24, 10, 10, 20}
	origin, asPath, nextHop := []byte{0x40, 1, 1, 0}, []byte{0x40, 2, 6, 2, 1, 0xfa, 0x56, 0xea, 2}, []byte{0x40, 3, 4, 127, 0, 0, 2}
	tests := []struct {
		name string
		msg  []byte
	}{
		{"a message of unknown type", message(0xff, nil)},
		{"MP_REACH of three bytes", update(nil, origin, asPath, []byte{0x80, 14, 3, 0, 1, 1})},
		{"AS4_PATH before AS_PATH", update(nlri, origin, []byte{0xc0, 17, 6, 2, 1, 0, 0, 0xfa, 0x56}, asPath, nextHop)},
		{"an unknown well-known attribute", update(nlri, origin, asPath, nextHop, []byte{0x40, 99, 1, 0})},
		{"a next hop of two bytes", update(nlri, origin, asPath, []byte{0x40, 3, 2, 127, 0})},
		{"a next hop of no bytes", update(nlri, origin, asPath, []byte{0x40, 3, 0})},
		{"no next hop", update(nlri, origin, asPath)},
		{"an attribute longer than the message", update(nil, []byte{0x40, 1, 200, 0})},
		{"an AS path segment longer than the path", update(nlri, origin, []byte{0x40, 2, 6, 2, 9, 0, 0, 0, 1}, nextHop)},
		{"a prefix of 33 bits", update([]byte{33, 10, 10, 20, 1, 1}, origin, asPath, nextHop)},
		{"an aggregator of three bytes", update(nlri, origin, asPath, nextHop, []byte{0xc0, 7, 3, 1, 2, 3})},
		{"a large community of five bytes", update(nlri, origin, asPath, nextHop, []byte{0xc0, 32, 5, 1, 2, 3, 4, 5})},
		{"an origin without its transitive flag", update(nlri, []byte{0, 1, 1, 0}, asPath, nextHop)},
		{"an empty AS path from another AS", update(nlri, origin, []byte{0x40, 2, 0}, nextHop)},
		{"a next hop of all zeros", update(nlri, origin, asPath, []byte{0x40, 3, 4, 0, 0, 0, 0})},
		{"a tunnel encapsulation cut short", update(nlri, origin, asPath, nextHop, []byte{0xc0, 23, 3, 0, 8, 0})},
		{"a prefix SID cut short", update(nlri, origin, asPath, nextHop, []byte{0xc0, 40, 2, 1, 0})},
		{"an IPv6 next hop of no bytes", update(nil, origin, asPath, []byte{0x80, 14, 5, 0, 2, 1, 0, 0})},
		{"an IPv6 prefix of 129 bits", update(nil, origin, asPath, append(append([]byte{0x80, 14, 38, 0, 2, 1, 16}, make([]byte, 16)...), append([]byte{0, 129}, make([]byte, 16)...)...))},
		{"a link bandwidth that is no number", update(nlri, origin, asPath, nextHop, []byte{0xc0, 16, 8, 0x40, 4, 0xfa, 0x56, 0x7f, 0xc0, 0, 0})},
		{"a message shorter than its header", append(bytes.Repeat([]byte{0xff}, 16), 0, 4, 2)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := handshake(t)
			defer conn.Close()
			if _, err := conn.Write(tt.msg); err != nil {
				t.Fatal(err)
			}
			// Whatever the router does with the message, it has done it when it closes or answers a KEEPALIVE later.
			_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = io.Copy(io.Discard, conn)
			if !m.has("10.10.30.0/24", "127.0.0.3") {
				t.Error("the other node's route is gone")
			}
			for _, l := range m.Learned() {
				for _, v := range l.Via {
					if !v.NextHop.IsValid() || v.NextHop.IsUnspecified() {
						t.Errorf("learned a path without next hop: %v", l)
					}
				}
			}
		})
	}
}

// handshake brings up a session from 127.0.0.2 by hand.
func handshake(t *testing.T) net.Conn {
	t.Helper()
	var conn net.Conn
	within(t, 10*time.Second, "a session by hand", func() bool {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IP{127, 0, 0, 2}}}
		c, err := d.Dial("tcp", "127.0.0.1:179")
		if err != nil {
			return false
		}
		open := []byte{4, 0x5b, 0xa0, 0, 9, 10, 0, 0, 2, 8, 2, 6, 65, 4, 0xfa, 0x56, 0xea, 0x02}
		_, _ = c.Write(append(message(1, open), message(4, nil)...))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		for range 2 { // its OPEN and its KEEPALIVE
			head := make([]byte, 19)
			if _, err := io.ReadFull(c, head); err != nil {
				_ = c.Close()
				return false
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint16(head[16:]))-19); err != nil {
				_ = c.Close()
				return false
			}
		}
		conn = c
		return true
	})
	return conn
}

func message(typ byte, body []byte) []byte {
	m := bytes.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(19+len(body)))
	return append(append(m, typ), body...)
}

func update(nlri []byte, attrs ...[]byte) []byte {
	all := bytes.Join(attrs, nil)
	body := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(all)))
	return message(2, append(append(body, all...), nlri...))
}
