// SPDX-License-Identifier: Apache-2.0

// Package ipam judges the leases of a node's networks: how full a subnet is, which lease nobody uses, and what another
// plugin's records become. It knows leases as values only.
package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// Usage is how full one subnet of a network is.
type Usage struct {
	Network string       `json:"network"`
	Subnet  netip.Prefix `json:"subnet"`
	Ranges  []string     `json:"ranges,omitempty"` // where pods get less than the whole subnet: "10.10.10.10-10.10.10.20"
	Used    int          `json:"used"`
	Size    int          `json:"size"` // addresses that pods can get
}

// String is "10.10.10.0/24: 3 of 253 addresses in use (1%)".
func (u Usage) String() string {
	where := u.Subnet.String()
	if len(u.Ranges) > 0 {
		where += " (" + strings.Join(u.Ranges, ", ") + ")"
	}
	return fmt.Sprintf("%s: %d of %d addresses in use (%d%%)", where, u.Used, u.Size, u.Percent())
}

// Percent is how full the subnet is, rounded down.
func (u Usage) Percent() int {
	if u.Size == 0 {
		return 100
	}
	return u.Used * 100 / u.Size
}

// Count tells how full every subnet of the host's networks is.
func Count(h view.Host) []Usage {
	var out []Usage
	for _, n := range h.Networks {
		if n.Bridge == "" || n.Delegate != "" {
			continue
		}
		subnets := n.Subnets
		if len(subnets) == 0 && h.Node != nil {
			subnets = h.Node.PodSubnets
		}
		for _, s := range subnets {
			out = append(out, count(h, n, s))
		}
	}
	return out
}

// count tells how full one subnet is: what pods can get of it, and what is held of that.
func count(h view.Host, n view.Network, subnet netip.Prefix) Usage {
	u := Usage{Network: n.Name, Subnet: subnet}
	ranges := slices.DeleteFunc(slices.Clone(n.Ranges), func(r view.Range) bool { return r.Subnet != subnet })
	if len(ranges) == 0 {
		ranges = []view.Range{{Subnet: subnet}}
	}
	var set pool.Set
	for _, r := range ranges {
		if x, err := pool.NewRange(subnet, r.First, r.Last, r.Gateway); err == nil {
			set = append(set, x)
			if r.First.IsValid() || r.Last.IsValid() {
				u.Ranges = append(u.Ranges, x.First.String()+"-"+x.Last.String())
			}
		}
	}
	u.Size = set.Size()
	for _, l := range h.Leases {
		if _, ok := set.Find(l.Addr); ok && l.Network == n.Name {
			u.Used++
		}
	}
	return u
}

// Stray is a lease that something is wrong with.
type Stray struct {
	view.Lease
	Why   string `json:"why"`
	Stale bool   `json:"stale"` // nobody uses it: it may be released
}

// Strays names every lease without a living attachment, and every address that a living attachment has without a lease
// or that another's lease claims. portOf is the name of the veth that an attachment would have; an attachment lives as
// long as its veth or its namespace does.
func Strays(h view.Host, portOf func(container, ifName string) string) []Stray {
	var out []Stray
	for _, l := range h.Leases {
		switch {
		case l.Container == "":
			out = append(out, Stray{Lease: l, Why: "its file names no container (a crash of host-local, or of the machine, leaves such): nobody can tell whose it is"})
		case !alive(h, l, portOf) && l.HostLocal != "":
			out = append(out, Stray{Lease: l, Stale: true, Why: "its container, which had it from host-local, is not on this node any more"})
		case !alive(h, l, portOf):
			out = append(out, Stray{Lease: l, Stale: true, Why: "its container has no interface on this node any more"})
		}
	}
	for _, p := range h.Pods {
		if !p.Alive || !leased(h, p.Network) {
			continue
		}
		for _, a := range p.Addrs {
			i := slices.IndexFunc(h.Leases, func(l view.Lease) bool { return l.Network == p.Network && l.Addr == a })
			mine := view.Lease{Network: p.Network, Addr: a, Container: p.Container, IfName: p.IfName, Pod: p.Name}
			switch {
			case i < 0:
				out = append(out, Stray{Lease: mine, Why: "is in use by a pod, but no lease holds it: it could be given twice"})
			case h.Leases[i].Container != p.Container && h.Leases[i].Container != "":
				out = append(out, Stray{Lease: mine, Why: "is in use by a pod, but leased to container " + h.Leases[i].Container})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Stray) int { return a.Addr.Compare(b.Addr) })
	return out
}

func alive(h view.Host, l view.Lease, portOf func(string, string) string) bool {
	if _, ok := h.Link(portOf(l.Container, l.IfName)); ok {
		return true
	}
	return slices.ContainsFunc(h.Pods, func(p view.Pod) bool { return p.Container == l.Container && p.IfName == l.IfName && p.Alive })
}

// leased reports a network whose addresses our leases give.
func leased(h view.Host, network string) bool {
	return slices.ContainsFunc(h.Networks, func(n view.Network) bool { return n.Name == network && n.Leases() })
}
