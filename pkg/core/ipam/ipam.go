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
			out = append(out, Stray{Lease: l, Why: "the file is not one of our leases (another plugin's? l3ctl ipam import-host-local takes those over)"})
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
	return slices.ContainsFunc(h.Networks, func(n view.Network) bool {
		return n.Name == network && n.Delegate == "" && slices.Contains(n.Plugins, "bridge-l3")
	})
}

// Foreign is one record of host-local: a file named by an address, which says container and interface in two lines.
type Foreign struct {
	Addr      netip.Addr `json:"address"`
	Container string     `json:"containerID"`
	IfName    string     `json:"ifname"`
}

// ParseForeign reads one file of a host-local directory; ok is false for its lock and its cursors.
func ParseForeign(name, text string) (f Foreign, ok bool, err error) {
	a, err := netip.ParseAddr(strings.ReplaceAll(name, "_", ":")) // on file systems without colons
	if err != nil {
		return Foreign{}, false, nil //nolint:nilerr // lock, last_reserved_ip.0
	}
	id, ifName, _ := strings.Cut(strings.TrimSpace(text), "\n")
	f = Foreign{Addr: a, Container: strings.TrimSpace(id), IfName: strings.TrimSpace(ifName)}
	if f.IfName == "" {
		f.IfName = "eth0" // host-local before 0.7 wrote the container only
	}
	if f.Container == "" {
		return Foreign{}, false, fmt.Errorf("%s: is empty: a crash of host-local left it; nobody can tell whose it was", name)
	}
	return f, true, nil
}

// Fate is what becomes of a foreign record.
type Fate struct {
	Foreign
	Pod      string `json:"pod,omitempty"`
	Held     bool   `json:"held"`               // this owner has the lease already
	Conflict string `json:"conflict,omitempty"` // who holds the address instead
	Dead     bool   `json:"dead"`               // the runtime knows no such container any more: taken all the same
}

// Plan decides what becomes of every record. What is in use must never be given again, so a record whose container the
// runtime does not know is taken too: GC releases it, if it is nobody's.
func Plan(h view.Host, network string, records []Foreign) []Fate {
	var out []Fate
	for _, r := range records {
		f := Fate{Foreign: r, Dead: true}
		for _, p := range h.Pods {
			if p.Container == r.Container && p.Alive {
				f.Pod, f.Dead = p.Name, false
			}
		}
		for _, l := range h.Leases {
			if l.Network != network || l.Addr != r.Addr {
				continue
			}
			if l.Container == r.Container && l.IfName == r.IfName {
				f.Held = true
			} else if l.Container != "" {
				f.Conflict = fmt.Sprintf("%s is leased to %s (container %s)", r.Addr, name(l), l.Container)
			}
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Fate) int { return a.Addr.Compare(b.Addr) })
	return out
}

func name(l view.Lease) string {
	if l.Pod != "" {
		return "pod " + l.Pod
	}
	return "interface " + l.IfName
}
