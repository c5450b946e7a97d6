// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// Foreign is one record of host-local.
type Foreign struct {
	Addr      netip.Addr `json:"address"`
	Container string     `json:"containerID,omitempty"`
	IfName    string     `json:"ifname,omitempty"`
	Problem   string     `json:"problem,omitempty"` // why it cannot be taken over: nobody can tell whose it is, or it did not work
}

// Fate is what becomes of a foreign record.
type Fate struct {
	Network string `json:"network"`
	Foreign
	Pod      string `json:"pod,omitempty"`
	Held     bool   `json:"held"`               // this owner has the lease already
	Conflict string `json:"conflict,omitempty"` // who holds the address instead
	Dead     bool   `json:"dead"`               // the runtime knows no such container any more: taken all the same
}

// Fails reports that the address has not become a lease, and is none already.
func (f Fate) Fails() bool { return f.Problem != "" || f.Conflict != "" }

// Plan decides what becomes of every record of the network that host-local calls from. What is in use must never be given
// again, so a record whose container the runtime does not know is taken too: GC releases it, if it is nobody's. A record that
// names no container is the living pod's that has the address, if there is one.
func Plan(h view.Host, network, from string, records []Foreign) []Fate {
	var out []Fate
	for _, r := range records {
		if p, ok := h.PodAt(r.Addr); ok && p.Alive && p.Network == from && r.Container == "" {
			r = Foreign{Addr: r.Addr, Container: p.Container, IfName: p.IfName}
		}
		f := Fate{Network: network, Foreign: r, Dead: true}
		for _, p := range h.Pods {
			if p.Container == r.Container && p.Alive {
				f.Pod, f.Dead = p.Name, false
			}
		}
		for _, l := range h.Leases {
			if l.Network != network || l.Addr != r.Addr || l.HostLocal != "" {
				continue
			}
			if l.Container == r.Container && l.IfName == r.IfName {
				f.Held = true
			} else if l.Container != "" && f.Problem == "" {
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
