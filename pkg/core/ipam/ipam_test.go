// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/l3edge/l3edge/pkg/core/view"
)

var addr = netip.MustParseAddr

func host() view.Host {
	return view.Host{
		Networks: []view.Network{{Name: "l3edge", Plugins: []string{"bridge-l3"}, Bridge: "cni0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}}},
		Links:    []view.Link{{Name: "veth-a"}},
		Pods: []view.Pod{
			{Name: "default/b", Container: "b", IfName: "eth0", Network: "l3edge", Alive: true, Addrs: []netip.Addr{addr("10.10.10.3")}},
			{Name: "default/c", Container: "c", IfName: "eth0", Network: "l3edge", Alive: true, Addrs: []netip.Addr{addr("10.10.10.4")}},
			{Name: "default/d", Container: "d", IfName: "eth0", Network: "l3edge", Alive: false, Addrs: []netip.Addr{addr("10.10.10.5")}},
		},
		Leases: []view.Lease{
			{Network: "l3edge", Addr: addr("10.10.10.2"), Container: "a", IfName: "eth0"},
			{Network: "l3edge", Addr: addr("10.10.10.3"), Container: "b", IfName: "eth0", Pod: "default/b"},
			{Network: "l3edge", Addr: addr("10.10.10.5"), Container: "d", IfName: "eth0", Pod: "default/d"},
			{Network: "l3edge", Addr: addr("10.10.10.6")},
		},
	}
}

func portOf(container, _ string) string { return "veth-" + container }

func TestStrays(t *testing.T) {
	var got []string
	for _, s := range Strays(host(), portOf) {
		got = append(got, s.Addr.String()+" "+map[bool]string{true: "stale: ", false: ""}[s.Stale]+s.Why)
	}
	want := []string{
		"10.10.10.4 is in use by a pod, but no lease holds it: it could be given twice",
		"10.10.10.5 stale: its container has no interface on this node any more",
		"10.10.10.6 its file names no container (a crash of host-local, or of the machine, leaves such): nobody can tell whose it is",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCount(t *testing.T) {
	got := Count(host())
	if len(got) != 1 || got[0].String() != "10.10.10.0/24: 4 of 253 addresses in use (1%)" {
		t.Errorf("got %v", got)
	}
}

// What cannot be given is neither size nor use.
func TestCountMindsRanges(t *testing.T) {
	h := host()
	h.Networks[0].Ranges = []view.Range{
		{Subnet: h.Networks[0].Subnets[0], First: addr("10.10.10.3"), Last: addr("10.10.10.5"), Gateway: addr("10.10.10.4")},
		{Subnet: h.Networks[0].Subnets[0], First: addr("10.10.10.200")},
	}
	got := Count(h)
	if want := "10.10.10.0/24 (10.10.10.3-10.10.10.5, 10.10.10.200-10.10.10.254): 2 of 57 addresses in use (3%)"; len(got) != 1 || got[0].String() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// Files of host-local hold addresses as leases do, for as long as their containers live.
func TestStraysOfHostLocal(t *testing.T) {
	h := host()
	h.Leases = []view.Lease{
		{Network: "l3edge", Addr: addr("10.10.10.3"), Container: "b", IfName: "eth0"},
		{Network: "l3edge", Addr: addr("10.10.10.4"), Container: "c", IfName: "eth0", HostLocal: "/x/10.10.10.4"},
		{Network: "l3edge", Addr: addr("10.10.10.9"), Container: "gone", IfName: "eth0", HostLocal: "/x/10.10.10.9"},
	}
	got := Strays(h, portOf)
	if len(got) != 1 || got[0].Addr != addr("10.10.10.9") || !got[0].Stale || !strings.Contains(got[0].Why, "had it from host-local") {
		t.Errorf("got %+v", got)
	}
}

func TestPlan(t *testing.T) {
	h := host()
	h.Pods = append(h.Pods, view.Pod{Name: "default/e", Container: "e", IfName: "net1", Network: "old", Alive: true, Addrs: []netip.Addr{addr("10.10.10.7")}})
	h.Leases = append(h.Leases, view.Lease{Network: "l3edge", Addr: addr("10.10.10.4"), Container: "c", IfName: "eth0", HostLocal: "/x"})
	const empty = "the file is empty"
	got := Plan(h, "l3edge", "old", []Foreign{
		{addr("10.10.10.9"), "gone", "eth0", ""}, {addr("10.10.10.4"), "c", "eth0", ""},
		{addr("10.10.10.3"), "b", "eth0", ""}, {addr("10.10.10.2"), "z", "eth0", ""},
		{addr("10.10.10.7"), "", "", empty}, {addr("10.10.10.8"), "", "", empty},
	})
	of := func(a, container, ifName string) Foreign {
		return Foreign{Addr: addr(a), Container: container, IfName: ifName}
	}
	want := []Fate{
		{Network: "l3edge", Foreign: of("10.10.10.2", "z", "eth0"), Dead: true, Conflict: "10.10.10.2 is leased to interface eth0 (container a)"},
		{Network: "l3edge", Foreign: of("10.10.10.3", "b", "eth0"), Pod: "default/b", Held: true},
		{Network: "l3edge", Foreign: of("10.10.10.4", "c", "eth0"), Pod: "default/c"},
		{Network: "l3edge", Foreign: of("10.10.10.7", "e", "net1"), Pod: "default/e"},
		{Network: "l3edge", Foreign: Foreign{Addr: addr("10.10.10.8"), Problem: empty}, Dead: true},
		{Network: "l3edge", Foreign: of("10.10.10.9", "gone", "eth0"), Dead: true},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
