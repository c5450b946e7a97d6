// SPDX-License-Identifier: Apache-2.0

package learned

import (
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

var addr = netip.MustParseAddr

// told is what gobgp tells of one way to a prefix.
func told(t testing.TB, prefix netip.Prefix, peer, nexthop string, withdrawn bool) *apiutil.Path {
	t.Helper()
	nlri, err := bgp.NewIPAddrPrefix(prefix)
	if err != nil {
		t.Fatal(err)
	}
	nh, err := bgp.NewPathAttributeNextHop(addr(nexthop))
	if err != nil {
		t.Fatal(err)
	}
	return &apiutil.Path{
		Family: bgp.RF_IPv4_UC, Nlri: nlri, PeerAddress: addr(peer), Withdrawal: withdrawn, Attrs: []bgp.PathAttributeInterface{nh},
	}
}

// gobgp's queue has no bound. A reader that sleeps while 1,000 prefixes flap 100 times finds 1,000 changes, and holds no more.
func TestASlowReaderFindsPrefixesNotHistory(t *testing.T) {
	s := New()
	const prefixes, flaps = 1000, 100
	nobody := func(netip.Addr) uint32 { return 0 }
	for flap := range 2*flaps + 1 {
		for i := range prefixes {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)
			s.Apply([]*apiutil.Path{told(t, p, "10.20.30.1", "10.20.30.1", flap%2 == 1)}, nobody)
		}
	}
	if n := len(s.dirty); n != prefixes {
		t.Errorf("%d changes wait, want one per prefix", n)
	}
	got := s.Take()
	if len(got) != prefixes || len(got[0].Via) != 1 || len(s.Take()) != 0 {
		t.Errorf("taken %d, ways %v", len(got), got[0].Via)
	}
	if len(s.single) != 1 {
		t.Errorf("%d offers for one next hop", len(s.single))
	}
}

func TestWaysOfSeveralPeers(t *testing.T) {
	table := New()
	p := netip.MustParsePrefix("10.10.20.0/24")
	nobody := func(netip.Addr) uint32 { return 0 }
	for _, step := range []struct {
		peer      string
		withdrawn bool
		want      int
	}{
		{"10.20.30.1", false, 1}, {"10.20.30.2", false, 2}, {"10.20.30.1", false, 2}, {"10.20.30.1", true, 1}, {"10.20.30.1", true, 1},
		{"10.20.30.2", true, 0}, {"10.20.30.2", true, 0},
	} {
		table.Apply([]*apiutil.Path{told(t, p, step.peer, step.peer, step.withdrawn)}, nobody)
		if got := len(table.offers[p].ways()); got != step.want {
			t.Errorf("after %+v: %d ways", step, got)
		}
	}
	if len(table.offers) != 0 || len(table.count) != 0 {
		t.Errorf("left: %v %v", table.offers, table.count)
	}
}

func BenchmarkTable(b *testing.B) {
	nobody := func(netip.Addr) uint32 { return 0 }
	var paths []*apiutil.Path
	for i := range 100_000 {
		paths = append(paths, told(b, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32), "10.20.30.1", "10.20.30.1", false))
	}
	b.ReportAllocs()
	for b.Loop() {
		s := New()
		s.Apply(paths, nobody)
		s.Take()
	}
}
