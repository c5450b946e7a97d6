// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dual is a node with both families on link 2, a link-local neighbour on link 4 (swp1), and a default route each.
var dual = Topology{
	OnLink: []OnLink{{pfx("10.20.30.0/24"), 2}, {pfx("10.20.31.1/32"), 3}, {pfx("2001:db8:20:30::/64"), 2}},
	Self:   []netip.Addr{addr("10.20.30.62"), addr("2001:db8:20:30::62")},
	Links:  map[string]int{"ens18": 2, "swp1": 4},
	Gateways: []Gateway{
		{pfx("0.0.0.0/0"), NextHop{Gateway: addr("10.20.30.1"), Link: 2}},
		{pfx("192.168.0.0/16"), NextHop{Gateway: addr("10.20.30.2"), Link: 2}},
		{pfx("10.20.30.128/25"), NextHop{Gateway: addr("10.20.30.2"), Link: 2}},
		{pfx("::/0"), NextHop{Gateway: addr("fe80::1"), Link: 2}},
	},
}

func TestResolve(t *testing.T) {
	tests := []struct {
		name, prefix, nexthop, peer string
		want                        NextHop
		reason                      string
	}{
		{name: "IPv6 on the link", prefix: "2001:db8:10:20::/64", nexthop: "2001:db8:20:30::63", peer: "2001:db8:20:30::1", want: NextHop{Gateway: addr("2001:db8:20:30::63"), Link: 2}},
		{name: "IPv6 beyond the link goes through the peer", prefix: "2001:db8:10:30::/64", nexthop: "2001:db8:19:2::64", peer: "2001:db8:20:30::1", want: NextHop{Gateway: addr("2001:db8:20:30::1"), Link: 2}},
		{name: "IPv4 goes through a link-local neighbour, whose zone names the link", prefix: "10.10.30.0/24", nexthop: "fe80::1%swp1", peer: "fe80::1%swp1", want: NextHop{Gateway: addr("fe80::1"), Link: 4}},
		{name: "a link-local next hop without a zone is on the peer's link", prefix: "10.10.30.0/24", nexthop: "fe80::9", peer: "2001:db8:20:30::1", want: NextHop{Gateway: addr("fe80::9"), Link: 2}},
		{name: "a link-local next hop on a link that is gone", prefix: "10.10.30.0/24", nexthop: "fe80::1%swp9", peer: "fe80::1%swp9", reason: "next hop fe80::1%swp9 is not on a connected link, nor is the peer, and no gateway leads there"},
		{name: "IPv4 over an IPv6 session with its own next hop", prefix: "10.10.30.0/24", nexthop: "10.20.30.63", peer: "2001:db8:20:30::1", want: NextHop{Gateway: addr("10.20.30.63"), Link: 2}},
		{name: "IPv6 cannot go through IPv4", prefix: "2001:db8:10:30::/64", nexthop: "10.20.30.63", peer: "10.20.30.1", reason: "next hop 10.20.30.63 is IPv4, and IPv6 cannot go through it"},
		{name: "IPv6 told over an IPv4 session, next hop on the link", prefix: "2001:db8:10:30::/64", nexthop: "2001:db8:20:30::1", peer: "10.20.30.1", want: NextHop{Gateway: addr("2001:db8:20:30::1"), Link: 2}},
		{name: "a peer several hops away is reached through the default route", prefix: "10.10.30.0/24", nexthop: "172.16.9.9", peer: "172.16.9.9", want: NextHop{Gateway: addr("10.20.30.1"), Link: 2}},
		{name: "the longest of the host's own routes leads", prefix: "10.10.30.0/24", nexthop: "192.168.10.64", peer: "172.16.9.9", want: NextHop{Gateway: addr("10.20.30.2"), Link: 2}},
		{name: "inside the link's prefix a longer route leads to a gateway", prefix: "10.10.30.0/24", nexthop: "10.20.30.200", peer: "10.20.30.200", want: NextHop{Gateway: addr("10.20.30.2"), Link: 2}},
		{name: "a route to a link connects, though there is a default route", prefix: "10.10.30.0/24", nexthop: "10.20.31.1", peer: "10.20.31.1", want: NextHop{Gateway: addr("10.20.31.1"), Link: 3}},
		{name: "a link's broadcast address", prefix: "10.10.30.0/24", nexthop: "10.20.30.255", peer: "10.20.30.1", reason: "next hop 10.20.30.255 is everybody on its link"},
		{name: "a link's first address", prefix: "10.10.30.0/24", nexthop: "10.20.30.0", peer: "10.20.30.1", reason: "next hop 10.20.30.0 is everybody on its link"},
		{name: "IPv6 through the default route", prefix: "2001:db8:10:30::/64", nexthop: "2001:db8:99::1", peer: "2001:db8:99::1", want: NextHop{Gateway: addr("fe80::1"), Link: 2}},
	}
	for _, tt := range tests {
		hop, reason := dual.Resolve(pfx(tt.prefix), Via{NextHop: addr(tt.nexthop), Peer: addr(tt.peer)})
		if hop != tt.want || reason != tt.reason {
			t.Errorf("%s: got %v %q", tt.name, hop, reason)
		}
	}
}

func TestALostGatewayIsNone(t *testing.T) {
	topo := dual
	topo.Lost = []netip.Addr{addr("10.20.30.1")}
	for _, nh := range []string{"10.20.30.1", "172.16.9.9"} { // itself, and beyond it
		_, reason := topo.Resolve(pfx("10.10.30.0/24"), Via{NextHop: addr(nh), Peer: addr("10.20.30.1")})
		if reason != "gateway 10.20.30.1 does not answer" {
			t.Errorf("%s: %q", nh, reason)
		}
	}
	if hop, _ := topo.Resolve(pfx("10.10.30.0/24"), Via{NextHop: addr("10.20.30.63"), Peer: addr("10.20.30.1")}); hop.Gateway != addr("10.20.30.63") {
		t.Errorf("a neighbour that the lost peer told of: %v", hop)
	}
}

func TestWeights(t *testing.T) {
	const gbit = 125_000_000
	tests := []struct {
		name  string
		bands []uint64 // of 10.20.30.1, .2, ...
		want  string
	}{
		{"nobody tells", []uint64{0, 0}, "via 10.20.30.1 10.20.30.2"},
		{"one does not tell: equal", []uint64{3 * gbit, 0}, "via 10.20.30.1 10.20.30.2"},
		{"equal", []uint64{gbit, gbit}, "via 10.20.30.1 10.20.30.2"},
		{"three to one", []uint64{3 * gbit, gbit}, "via 10.20.30.1*3 10.20.30.2*1"},
		{"two to one, in smallest terms", []uint64{2, 1, 2}, "via 10.20.30.1*2 10.20.30.2*1 10.20.30.3*2"},
		{"a sliver is not nothing", []uint64{1000 * gbit, 1}, "via 10.20.30.1*60 10.20.30.2*1"},
		{"the largest number there is", []uint64{1<<64 - 1, 1 << 63}, "via 10.20.30.1*2 10.20.30.2*1"},
	}
	for _, tt := range tests {
		l := Learned{Prefix: pfx("10.100.87.105/32")}
		for i, b := range tt.bands {
			gw := netip.AddrFrom4([4]byte{10, 20, 30, byte(1 + i)})
			l.Via = append(l.Via, Via{NextHop: gw, Peer: gw, Bandwidth: b})
		}
		entry, _ := Choose(Policy{Accept: []Accept{{pfx("10.100.0.0/16"), 16, 32}}}, NewResolver(dual), l)
		if diff := cmp.Diff(tt.want, entry.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestWaysThroughOneGatewayAddUp(t *testing.T) {
	var l Learned
	l.Prefix = pfx("10.100.87.105/32")
	for i := range 20 { // behind 10.20.30.2, as the host's own route says
		l.Via = append(l.Via, Via{NextHop: netip.AddrFrom4([4]byte{192, 168, 10, byte(i)}), Peer: addr("172.16.9.9"), Bandwidth: 100})
	}
	l.Via = append(l.Via, Via{NextHop: addr("10.20.30.63"), Peer: addr("10.20.30.63"), Bandwidth: 100})
	entry, _ := Choose(Policy{Accept: []Accept{{pfx("10.100.0.0/16"), 16, 32}}}, NewResolver(dual), l)
	for range 2 { // what the kernel tells back is read as the same
		if want := "via 10.20.30.2*85 10.20.30.63*4"; NewEntry(entry.Hops...).String() != want {
			t.Errorf("got %s, want %s", entry, want)
		}
	}
}

// TestAPeerThatInventsNextHops gets no memory for it, and the right answers all the same.
func TestAPeerThatInventsNextHops(t *testing.T) {
	res := NewResolver(dual)
	hop := addr("10.64.0.0")
	for range 3 * memoLimit {
		hop = hop.Next()
		if r := res.resolve(pfx("10.10.20.0/24"), Via{NextHop: hop, Peer: addr("10.20.30.9")}); r.entry.String() != "via 10.20.30.9" {
			t.Fatalf("%s: %s %s", hop, r.entry, r.reason)
		}
		if len(res.memo) > memoLimit {
			t.Fatalf("%d next hops are remembered", len(res.memo))
		}
	}
}
