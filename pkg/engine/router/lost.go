// SPDX-License-Identifier: Apache-2.0

package router

import (
	"net/netip"
	"time"
)

// gateway is one that was lost or is back.
type gateway struct {
	addr netip.Addr
	lost bool
}

// lostFor is longer than BGP takes to withdraw what a lost peer told. Then it is believed again.
const lostFor = 2 * time.Second

// Lose says that a gateway does not answer any more, before BGP has withdrawn its paths: traffic that has another way
// takes it at once. Find says that it is back.
func (r *Router) Lose(gw netip.Addr) {
	r.hear(func() { r.news.gateways = append(r.news.gateways, gateway{gw, true}) })
}

// Find ends Lose.
func (r *Router) Find(gw netip.Addr) {
	r.hear(func() { r.news.gateways = append(r.news.gateways, gateway{gw, false}) })
}

// lose takes traffic off the gateways that were lost.
func (r *Router) lose(n *news) error {
	for gw, since := range r.lost {
		if time.Since(since) >= lostFor {
			delete(r.lost, gw)
			n.topology = true
		} else {
			r.wake(lostFor - time.Since(since))
		}
	}
	for _, g := range n.gateways {
		_, known := r.lost[g.addr]
		n.topology = n.topology || g.lost != known
		if !g.lost {
			delete(r.lost, g.addr)
			continue
		}
		r.lost[g.addr] = time.Now()
		r.wake(lostFor)
		hop, ok := r.topo.Neighbour(g.addr)
		if !ok {
			continue // the kernel has dropped the routes with the link, or they never went there directly
		}
		moved, err := r.o.Kernel.Lose(hop)
		if err != nil {
			return err
		}
		if len(moved) > 0 {
			r.actual.Move(moved)
			r.o.Log.Warn("gateway lost, traffic moved", "nexthop", g.addr, "sets", len(moved))
		}
	}
	return nil
}
