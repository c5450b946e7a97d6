// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/subnet"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// Numbers of linux/rtnetlink.h for routes that somebody wrote by hand.
const (
	protoBoot   = 3
	protoStatic = 4
)

// Switch says what is wrong on the switch's side. From a node it sees what the session shows; with a view of the switch
// itself (mls not nil) also its table.
func Switch(nodes []view.Host, mls *view.Host) []Finding {
	var out []Finding
	for _, n := range nodes {
		out = append(out, fromNode(n)...)
	}
	if mls != nil {
		out = append(out, inSwitch(nodes, *mls)...)
	}
	return out
}

// fromNode judges by one node's sessions.
func fromNode(n view.Host) []Finding {
	part := "switch, seen from " + n.Name
	if n.Routed.Problem != "" || len(n.Routed.Sessions) == 0 {
		return []Finding{{Part: part, Problem: "there is no session to judge by", Cause: n.Routed.Problem, Fix: "routed --peer=SWITCH on this node"}}
	}
	var out []Finding
	hold := 0
	for _, s := range n.Routed.Sessions {
		if !s.Up() {
			out = append(out, sessions(view.Routed{Sessions: []view.Session{s}})...)
			continue
		}
		if s.In == 0 {
			out = append(out, Finding{
				Part: part, Problem: fmt.Sprintf("%s announces nothing", s.Peer), Warning: true, Cause: "no other node is up, or the switch's outbound policy denies everything " +
					"(FRR: bgp ebgp-requires-policy without a route-map)", Fix: "compare its outbound policy with l3ctl mls-config",
			})
		}
		if s.Out == 0 {
			out = append(out, Finding{Part: part, Problem: "nothing is announced to " + s.Peer, Cause: "this node has no pod subnet, or holds it back", Fix: "l3ctl status"})
		}
		if hold != 0 && s.HoldTime != 0 && s.HoldTime != hold {
			out = append(out, Finding{
				Part: part, Problem: fmt.Sprintf("hold times differ: %ds and %ds", hold, s.HoldTime), Warning: true,
				Cause: "the switches were given different timers: one failure is seen at different times", Fix: "the same timers on both",
			})
		}
		hold = max(hold, s.HoldTime)
		if s.Losses > 3 {
			out = append(out, Finding{Part: part, Problem: fmt.Sprintf("the session with %s was lost %d times", s.Peer, s.Losses), Warning: true, Cause: s.Problem, Fix: "see the switch's log: max-prefix, hold time, link errors"})
		}
	}
	for _, r := range n.Routes {
		if (r.Protocol == protoStatic || r.Protocol == protoBoot) && r.Dst.Bits() > 0 && inCluster(n, r.Dst) {
			out = append(out, static(part+", on the node", r))
		}
	}
	return out
}

func static(part string, r view.Route) Finding {
	return Finding{
		Part: part, Problem: "a static route is left: " + r.String(), Cause: "it wins over BGP, and stays when the node behind it dies",
		Fix: "remove it: l3ctl mls-config --static has the order", Warning: true,
	}
}

func inCluster(n view.Host, p netip.Prefix) bool {
	return n.Node != nil && slices.ContainsFunc(n.Node.ClusterPrefixes, func(c netip.Prefix) bool { return subnet.Contains(c, p) })
}

// inSwitch judges by the switch's own table.
func inSwitch(nodes []view.Host, mls view.Host) []Finding {
	var out []Finding
	announcers := map[netip.Prefix][]string{}
	for _, n := range nodes {
		for _, a := range n.Routed.Announced {
			announcers[a.Prefix] = append(announcers[a.Prefix], n.Name)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(announcers), netip.Prefix.Compare) {
		r, ok := routeTo(mls, p)
		switch {
		case !ok:
			out = append(out, Finding{
				Part: "switch", Problem: fmt.Sprintf("it has no route to %s, which %s announces", p, announcers[p][0]),
				Cause: "its inbound policy or max-prefix refuses it", Fix: "compare its inbound policy with l3ctl mls-config",
			})
		case r.Protocol == protoStatic || r.Protocol == protoBoot:
			out = append(out, static("switch", r))
		case len(r.More)+1 < len(announcers[p]):
			out = append(out, Finding{
				Part: "switch", Problem: fmt.Sprintf("it uses %d of the %d ways to %s", len(r.More)+1, len(announcers[p]), p), Warning: true,
				Cause: "multipath is off, or needs bestpath as-path multipath-relax because the nodes' AS numbers differ", Fix: "maximum-paths and multipath-relax, as in l3ctl mls-config",
			})
		}
	}
	return out
}

// routeTo is the route of exactly that prefix with the lowest metric.
func routeTo(h view.Host, p netip.Prefix) (best view.Route, ok bool) {
	for _, r := range h.Routes {
		if r.Dst == p && (!ok || r.Metric < best.Metric) {
			best, ok = r, true
		}
	}
	return best, ok
}
