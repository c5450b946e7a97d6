// SPDX-License-Identifier: Apache-2.0

package router

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// Rounds counts what Sync did.
type Rounds struct {
	OK     uint64        `json:"ok"`
	Failed uint64        `json:"failed"`
	Spent  time.Duration `json:"spent"` // nanoseconds
	// Latency is how long those took that changed routes, from the first that was heard to the kernel's having them.
	Latency Histogram `json:"latency"`
}

// Status is what the router holds, sorted by prefix.
type Status struct {
	Routes    []Route              `json:"routes"`
	Announced []route.Announcement `json:"announced"`
	Held      []route.Held         `json:"held,omitempty"`
	Refused   []route.Refused      `json:"refused,omitempty"`
	Damped    int                  `json:"damped,omitempty"` // prefixes that flap and are followed once a second
	Rounds    Rounds               `json:"rounds"`
}

// Route is one prefix in the kernel.
type Route struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    []netip.Addr `json:"via,omitempty"`          // none: unreachable
	Stale  bool         `json:"stale,omitempty"`        // left by an earlier process, not yet told again by a peer
	Failed bool         `json:"unprogrammed,omitempty"` // not in the kernel as wanted
	// Problem is why the kernel does not take it, where it has said so.
	Problem string `json:"problem,omitempty"`
}

// Status tells where things stand.
func (r *Router) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{Routes: []Route{}, Announced: slices.Clone(r.decision.Announce), Held: slices.Clone(r.decision.Held), Damped: r.damper.Damped(), Rounds: r.rounds}
	for p, e := range r.actual {
		x := r.route(p)
		for _, h := range e.Hops {
			x.Via = append(x.Via, h.Gateway)
		}
		s.Routes = append(s.Routes, x)
	}
	for p := range r.desired {
		if _, ok := r.actual[p]; !ok {
			x := r.route(p)
			x.Failed = true
			s.Routes = append(s.Routes, x)
		}
	}
	slices.SortFunc(s.Routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	for _, p := range slices.SortedFunc(maps.Keys(r.refused), netip.Prefix.Compare) {
		s.Refused = append(s.Refused, r.refused[p]...)
	}
	return s
}

// route is what there is to say of a prefix, less where it leads.
func (r *Router) route(p netip.Prefix) Route {
	x := Route{Prefix: p, Stale: r.stale[p]}
	if f := r.failed[p]; f != nil {
		x.Failed, x.Problem = true, f.problem
	}
	return x
}
