// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"testing"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestHostRoutesLead(t *testing.T) {
	n, _, table, link := node(t)
	tests := []struct {
		name, setup, peer, want string
	}{
		{"a route to a link connects", "ip route add 10.20.31.1 dev ens18", "10.20.31.1", "via 10.20.31.1"},
		{"and a route for all", "ip route add default dev ens18", "172.16.9.9", "via 172.16.9.9"},
		{"unless a longer one leads through a gateway", "ip route add default dev ens18; ip route add 172.16.0.0/16 via 10.20.30.9", "172.16.9.9", "via 10.20.30.9"},
		{"a default route of several gateways leads through one", "ip route add default nexthop via 10.20.30.8 nexthop via 10.20.30.9", "172.16.9.9", "via 10.20.30.8"},
		{"one by a nexthop object", "ip nexthop add id 7 via 10.20.30.9 dev ens18; ip route add default nhid 7", "172.16.9.9", "via 10.20.30.9"},
		{"by an object that is all the kernel names", "ip nexthop add id 7 via 10.20.30.9 dev ens18; ip route add default nhid 7; sysctl -qw net.ipv4.nexthop_compat_mode=0", "172.16.9.9", "via 10.20.30.9"},
		{"by a group of such", "ip nexthop add id 7 via 10.20.30.9 dev ens18; ip nexthop add id 8 group 7; ip route add default nhid 8; sysctl -qw net.ipv4.nexthop_compat_mode=0", "172.16.9.9", "via 10.20.30.9"},
		{"what is refused leads nowhere", "ip route add unreachable default", "172.16.9.9", ""},
	}
	for _, tt := range tests {
		nstest.Sh(t, n, tt.setup)
		topo, err := table.Topology()
		if err != nil {
			t.Fatal(err)
		}
		a := addr(tt.peer)
		hop, reason := topo.Resolve(pfx("10.10.20.0/24"), route.Via{NextHop: a, Peer: a})
		got := ""
		if reason == "" {
			got = route.NewEntry(hop).String()
		}
		if got != tt.want || reason == "" && hop.Link != link {
			t.Errorf("%s: got %q on link %d (%s), want %q", tt.name, got, hop.Link, reason, tt.want)
		}
		if want := (route.FIB{pfx("10.10.20.0/24"): route.NewEntry(hop)}); reason == "" {
			become(t, table, want) // the kernel agrees
			become(t, table, route.FIB{})
		}
		nstest.Sh(t, n, "sysctl -qw net.ipv4.nexthop_compat_mode=1; for r in default 172.16.0.0/16 10.20.31.1; do ip route del $r 2>/dev/null || true; done; for id in 8 7; do ip nexthop del id $id 2>/dev/null || true; done")
	}
}
