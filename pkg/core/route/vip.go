// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/netip"
	"slices"
)

// Portals is what portald says about the service addresses that it has programmed on this node.
type Portals struct {
	Problem string         // why portald's word cannot be taken; empty: it can
	Nets    []netip.Prefix // portal nets, that cluster addresses come from
	VIPs    []VIP          // in any order; an address may be there once per port
}

// VIP is one service address.
type VIP struct {
	Addr  netip.Addr
	Ready int // endpoints that would answer
}

// VIPWish says which service addresses are announced at all.
type VIPWish struct {
	Net   bool // each portal net, as one aggregate
	Hosts bool // addresses outside the portal nets (external, load balancer), each as a host route
}

// Drain is how far a node has taken its service addresses off.
type Drain int

// Stages of a drain.
const (
	Serving  Drain = iota
	Leaving        // announced with GRACEFUL_SHUTDOWN (RFC 8326): others prefer other nodes
	Departed       // withdrawn
)

// VIPs are the intents for service addresses, sorted by prefix: a portal net when portald has programmed everything, a
// single address when an endpoint is ready besides, with the number of them as its share. None is a sink: the kernel looks
// up the route of a local client's packet before it translates it, and would refuse it. What comes from the fabric and is
// no service's, portald refuses.
func VIPs(wish VIPWish, p Portals, d Drain) []Intent {
	var out []Intent
	lacks := func(ready bool) string {
		switch {
		case p.Problem != "":
			return p.Problem
		case d == Departed:
			return "drained"
		case !ready:
			return "no endpoint is ready"
		}
		return ""
	}
	if wish.Net {
		for _, n := range p.Nets {
			out = append(out, Intent{Prefix: n, Why: "portal net", Lacks: lacks(true), Leaving: d == Leaving})
		}
	}
	if wish.Hosts {
		ready := map[netip.Addr]int{}
		for _, v := range p.VIPs {
			if !slices.ContainsFunc(p.Nets, func(n netip.Prefix) bool { return n.Contains(v.Addr) }) {
				ready[v.Addr] = max(ready[v.Addr], v.Ready)
			}
		}
		for a, n := range ready {
			out = append(out, Intent{Prefix: netip.PrefixFrom(a, a.BitLen()), Why: "service address", Lacks: lacks(n > 0), Leaving: d == Leaving, Share: n})
		}
	}
	slices.SortFunc(out, func(a, b Intent) int { return a.Prefix.Compare(b.Prefix) })
	return out
}
