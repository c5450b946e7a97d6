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
		"10.10.10.6 the file is not one of our leases (another plugin's? l3ctl ipam import-host-local takes those over)",
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

func TestParseForeign(t *testing.T) {
	for _, row := range []struct {
		what, name, text string
		want             Foreign
		ok               bool
		err              string
	}{
		{"a lease of today", "10.10.10.7", "0a1b\r\neth0", Foreign{addr("10.10.10.7"), "0a1b", "eth0"}, true, ""},
		{"a lease of an old host-local", "10.10.10.7", "0a1b", Foreign{addr("10.10.10.7"), "0a1b", "eth0"}, true, ""},
		{"an IPv6 lease where colons are no names", "fd00_10__7", "0a1b\r\nnet1", Foreign{addr("fd00:10::7"), "0a1b", "net1"}, true, ""},
		{"the cursor", "last_reserved_ip.0", "10.10.10.7", Foreign{}, false, ""},
		{"the lock", "lock", "", Foreign{}, false, ""},
		{"an empty file after a crash", "10.10.10.7", "", Foreign{}, false, "is empty"},
	} {
		t.Run(row.what, func(t *testing.T) {
			got, ok, err := ParseForeign(row.name, row.text)
			if ok != row.ok || got != row.want || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("got %+v, %t, %v", got, ok, err)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	got := Plan(host(), "l3edge", []Foreign{
		{addr("10.10.10.9"), "gone", "eth0"}, {addr("10.10.10.4"), "c", "eth0"},
		{addr("10.10.10.3"), "b", "eth0"}, {addr("10.10.10.2"), "z", "eth0"},
	})
	want := []Fate{
		{Foreign: Foreign{Addr: addr("10.10.10.2"), Container: "z", IfName: "eth0"}, Dead: true, Conflict: "10.10.10.2 is leased to interface eth0 (container a)"},
		{Foreign: Foreign{Addr: addr("10.10.10.3"), Container: "b", IfName: "eth0"}, Pod: "default/b", Held: true},
		{Foreign: Foreign{Addr: addr("10.10.10.4"), Container: "c", IfName: "eth0"}, Pod: "default/c"},
		{Foreign: Foreign{Addr: addr("10.10.10.9"), Container: "gone", IfName: "eth0"}, Dead: true},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
