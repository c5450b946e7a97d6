// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/l3edge/l3edge/pkg/core/peer"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// loopback6 gives the loopback fd00::1 to fd00::4, too.
func loopback6(t *testing.T) {
	t.Helper()
	loopback(t)
	nstest.Sh(t, here(t), "for i in 1 2 3 4; do ip addr replace fd00::$i/128 dev lo nodad; done")
}

func node6(n int, peers ...Peer) Config {
	c := node(n, peers...)
	c.LocalAddress, c.IPv4, c.IPv6 = addr(fmt.Sprintf("fd00::%d", n)), true, true
	return c
}

func mls6() Config {
	c := node6(1)
	c.ASN, c.Listen = 64512, []netip.Prefix{pfx("fd00::/64")}
	c.Transit = []route.Accept{route.AcceptAll(pfx("10.10.0.0/16")), route.AcceptAll(pfx("fd10:10::/48"))}
	return c
}

func TestBothFamiliesOverIPv6(t *testing.T) {
	loopback6(t)
	router := mls6()
	router.ListenAs.Password = "secret"
	m := run(t, router)
	set := Settings{Password: "secret", GTSM: true}
	n2, n3 := run(t, node6(2, Peer{Name: "fd00::1", Settings: set})), run(t, node6(3, Peer{Name: "fd00::1", Settings: set}))
	announce(t, n2, "10.10.20.0/24", "fd10:10:0:20::/64")
	announce(t, n3, "10.10.30.0/24", "fd10:10:0:30::/64")
	took := within(t, 3*time.Second, "routes of both families everywhere", func() bool {
		return m.has("fd10:10:0:20::/64", "fd00::2") && m.has("10.10.20.0/24", "fd00::2") && n2.has("fd10:10:0:30::/64", "fd00::1") && n3.has("10.10.20.0/24", "fd00::1")
	})
	t.Logf("after %s", took)
	within(t, 3*time.Second, "End-of-RIB of both", func() bool { return n2.Synced() && n3.Synced() })
	n3.stop()
	within(t, time.Second, "withdrawn", func() bool { return len(m.Learned()) == 2 && len(n2.Learned()) == 0 })
}

func TestIPv6OverIPv4(t *testing.T) {
	loopback6(t)
	router := mls()
	router.IPv4, router.IPv6 = true, true
	m := run(t, router)
	cfg := node(2, Peer{Name: "127.0.0.1"})
	cfg.IPv4, cfg.IPv6 = true, true
	n := run(t, cfg)
	announce(t, n, "10.10.20.0/24", "fd10:10:0:20::/64")
	within(t, 3*time.Second, "IPv4", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") })
	within(t, 3*time.Second, "End-of-RIB", n.Synced)
	if len(m.Learned()) != 1 {
		t.Errorf("IPv6 was announced without a next hop: %v", m.Learned())
	}
	if err := n.NextHops(map[netip.Prefix]netip.Addr{pfx("127.0.0.0/8"): addr("fd00::2")}); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "IPv6, through the node's IPv6 address", func() bool { return m.has("fd10:10:0:20::/64", "fd00::2") })
}

// wire is what a speaker holds of a prefix, as text.
func wire(t *testing.T, r *running, prefix string) string {
	t.Helper()
	var out []string
	f := bgp.RF_IPv4_UC
	err := r.srv.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f}, func(nlri bgp.NLRI, paths []*apiutil.Path) {
		if nlri.String() != prefix {
			return
		}
		for _, p := range paths {
			var attrs []string
			for _, a := range p.Attrs {
				if s := a.String(); !strings.Contains(s, "Nexthop") && !strings.Contains(s, "Origin: i") {
					attrs = append(attrs, s)
				}
			}
			out = append(out, strings.Join(attrs, " "))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func communities(t *testing.T, texts ...string) (out []Community) {
	t.Helper()
	for _, s := range texts {
		c, err := peer.ParseCommunity(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func TestAttributes(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	med, pref := uint32(50), uint32(300)
	peer := Peer{Name: "127.0.0.1", Settings: Settings{Out: Out{MED: &med, LocalPref: pref, Prepend: 2, Communities: communities(t, "64512:100", "no-export", "64512:1:2")}}}
	n := run(t, node(2, peer), "10.10.20.0/24")
	within(t, 3*time.Second, "route", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") })
	want := "{AsPath: 4200000002 4200000002 4200000002} {Med: 50} {Communities: 64512:100, no-export} {LargeCommunity: [ 64512:1:2]}"
	if diff := cmp.Diff(want, wire(t, m, "10.10.20.0/24")); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	n.SetPeers([]Peer{{Name: "127.0.0.1"}})
	within(t, 3*time.Second, "plain", func() bool { return wire(t, m, "10.10.20.0/24") == "{AsPath: 4200000002}" })
	if m.said("idle") || n.said("idle") {
		t.Errorf("other attributes cost the session: %v %v", m.events, n.events)
	}
}

func TestWhatIsPreferred(t *testing.T) {
	loopback(t)
	left, right := mls(), mls()
	right.LocalAddress, right.RouterID, right.ASN = addr("127.0.0.4"), addr("10.0.0.4"), 64513
	l, r := run(t, left, "10.10.50.0/24"), run(t, right, "10.10.50.0/24")
	n := run(t, node(2, Peer{Name: "127.0.0.1"}, Peer{Name: "127.0.0.4"}))
	only := func(hop string) func() bool {
		return func() bool {
			all := n.Learned()
			return len(all) == 1 && len(all[0].Via) == 1 && n.has("10.10.50.0/24", hop)
		}
	}
	within(t, 3*time.Second, "both are as good", func() bool { return n.has("10.10.50.0/24", "127.0.0.1") && n.has("10.10.50.0/24", "127.0.0.4") })
	leaving := own("10.10.50.0/24")
	leaving[0].Leaving = true
	if err := l.Announce(leaving); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "what is about to leave is not used", only("127.0.0.4"))
	r.stop()
	within(t, 3*time.Second, "unless there is nothing else", only("127.0.0.1"))
	announce(t, l, "10.10.50.0/24")
	_ = run(t, right, "10.10.50.0/24")
	within(t, 5*time.Second, "both again", func() bool { return n.has("10.10.50.0/24", "127.0.0.1") && n.has("10.10.50.0/24", "127.0.0.4") })
	n.SetPeers([]Peer{{Name: "127.0.0.1", Settings: Settings{Prefer: 200}}, {Name: "127.0.0.4"}})
	within(t, 3*time.Second, "the preferred peer", only("127.0.0.1"))
	if l.said("idle") {
		t.Errorf("another preference cost the session: %v", l.events)
	}
}

func TestLinkBandwidth(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	for i, share := range []int{1, 3} {
		n := run(t, node(2+i, Peer{Name: "127.0.0.1"}))
		a := own("10.10.50.0/24")
		a[0].Share = share
		if err := n.Announce(a); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 3*time.Second, "ways one to three", func() bool {
		all := m.Learned()
		if len(all) != 1 || len(all[0].Via) != 2 {
			return false
		}
		by := map[netip.Addr]uint64{}
		for _, v := range all[0].Via {
			by[v.NextHop] = v.Bandwidth
		}
		return by[addr("127.0.0.2")] == 125e6 && by[addr("127.0.0.3")] == 375e6
	})
}

// TestRouteReflector has two clients and their reflector in one AS.
func TestRouteReflector(t *testing.T) {
	loopback(t)
	router := mls()
	router.ListenAs.Reflect = true
	router.ListenAs.AddPaths = 4
	m := run(t, router)
	client := func(n int) *running {
		c := node(n, Peer{Name: "127.0.0.1", Settings: Settings{ASN: 64512, AddPaths: 4}})
		c.ASN = 64512
		return run(t, c)
	}
	n2, n3, n4 := client(2), client(3), client(4)
	announce(t, n2, "10.10.20.0/24", "10.10.50.0/24")
	announce(t, n3, "10.10.50.0/24")
	within(t, 3*time.Second, "reflected, next hop unchanged, all ways", func() bool {
		return m.has("10.10.20.0/24", "127.0.0.2") && n4.has("10.10.20.0/24", "127.0.0.2") && n4.has("10.10.50.0/24", "127.0.0.2") && n4.has("10.10.50.0/24", "127.0.0.3")
	})
	announce(t, n3)
	within(t, 3*time.Second, "one way less", func() bool { return !n4.has("10.10.50.0/24", "127.0.0.3") && n4.has("10.10.50.0/24", "127.0.0.2") })
}

func TestShutdownText(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	n := run(t, node(2, Peer{Name: "127.0.0.1"}), "10.10.20.0/24")
	within(t, 3*time.Second, "route", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") })
	n.Because("kubminion1: taken out of service")
	n.stop()
	within(t, 3*time.Second, "the router knows why", func() bool { return m.said("the peer has been shut down: kubminion1: taken out of service") })
}

// TestLongLived lets a node go without a word and never come back.
func TestLongLived(t *testing.T) {
	loopback(t)
	router := mls()
	router.ListenAs.LongLived = time.Hour
	m := run(t, router)
	cfg := node(2, Peer{Name: "127.0.0.1", Settings: Settings{LongLived: time.Hour}})
	cfg.RestartTime = time.Second
	n := run(t, cfg, "10.10.20.0/24")
	within(t, 3*time.Second, "route", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") })
	n.HandOver()
	n.stop()
	within(t, 5*time.Second, "kept beyond the restart time, marked as stale", func() bool {
		return m.has("10.10.20.0/24", "127.0.0.2") && strings.Contains(wire(t, m, "10.10.20.0/24"), "llgr-stale")
	})
}

// TestCollector is one (BMP, RFC 7854): it hears who the speaker is, of the peer, and what that says.
func TestCollector(t *testing.T) {
	loopback(t)
	l, err := net.Listen("tcp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := mls()
	cfg.Collectors = []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()}
	run(t, cfg)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run(t, node(2, Peer{Name: "127.0.0.1"}), "10.10.20.0/24")
	const initiation, peerUp, monitoring = 4, 3, 0
	heard := map[byte]bool{}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for !heard[initiation] || !heard[peerUp] || !heard[monitoring] {
		head := make([]byte, 6)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatalf("heard %v: %v", heard, err)
		}
		if head[0] != 3 { // the version
			t.Fatalf("header %v", head)
		}
		heard[head[5]] = true
		if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[1:]))-6); err != nil {
			t.Fatal(err)
		}
	}
}
