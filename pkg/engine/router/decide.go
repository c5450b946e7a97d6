// SPDX-License-Identifier: Apache-2.0

package router

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// damp slows down what flaps.
func (r *Router) damp(n *news) {
	now := time.Now()
	known := func(p netip.Prefix) bool { _, ok := r.desired[p]; return ok }
	through, began, ended, next := r.damper.Pass(n.changed, known, now)
	n.changed = through
	r.tellEach(slog.LevelWarn, "prefix flaps: followed once a second until it is calm", began)
	r.tellEach(slog.LevelInfo, "prefix is calm again", ended)
	if !next.IsZero() {
		r.wake(next.Sub(now))
	}
}

func (r *Router) wake(after time.Duration) {
	if r.o.Wake != nil {
		r.o.Wake(after)
	}
}

// decideAll decides anew from everything. What was withdrawn is in changed, so that nothing else can be left over.
func (r *Router) decideAll(pol route.Policy, intents []route.Intent, changed []route.Learned) {
	d := route.Compute(route.Input{Intents: intents})
	for p, e := range r.desired {
		if e.Unreachable() {
			delete(r.desired, p)
		}
	}
	anew := r.desired == nil
	if anew {
		r.desired = route.FIB{}
	}
	maps.Copy(r.desired, d.FIB)
	r.decision = d
	r.decision.FIB = nil
	r.decideSome(pol, changed)
	all := r.o.Speaker.Learned()
	if anew { // a withdrawal may have been missed
		known := make(map[netip.Prefix]bool, len(all))
		for _, l := range all {
			known[l.Prefix] = true
		}
		maps.DeleteFunc(r.refused, func(p netip.Prefix, _ []route.Refused) bool { return !known[p] })
		maps.DeleteFunc(r.waits, func(p netip.Prefix, _ bool) bool { return !known[p] })
	}
	r.decideSome(pol, all)
}

func (r *Router) decideSome(pol route.Policy, changed []route.Learned) {
	var fresh []route.Refused
	for _, l := range changed {
		p := l.Prefix
		entry, refused := route.Choose(pol, r.resolver, l)
		if r.wait(pol, l, refused) {
			r.waits[p] = true
		} else if len(r.waits) > 0 {
			delete(r.waits, p)
		}
		if len(refused) > 0 {
			fresh = append(fresh, unknown(r.refused[p], refused)...)
			r.refused[p] = refused
		} else if len(r.refused) > 0 {
			delete(r.refused, p)
		}
		if sink, ok := r.desired[p]; ok && sink.Unreachable() {
			continue // a sink of our own is never replaced by something learned
		}
		if entry.Unreachable() {
			delete(r.desired, p)
		} else {
			r.desired[p] = entry
		}
	}
	r.tellRefused(fresh)
}

// wait reports that a refused prefix may be usable once a link is there: that of a link-local next hop.
func (r *Router) wait(pol route.Policy, l route.Learned, refused []route.Refused) bool {
	return len(refused) > 0 && pol.Refuses(l.Prefix) == "" &&
		slices.ContainsFunc(l.Via, func(v route.Via) bool { return v.NextHop.Zone()+v.Peer.Zone() != "" })
}

// sweep ends the protection of what an earlier process left, once all peers have told everything or time is up.
func (r *Router) sweep(synced bool) bool {
	if r.swept || !synced && time.Since(r.started) < r.o.SweepAfter {
		return false
	}
	r.swept = true
	if n := len(r.stale); n > 0 {
		r.o.Log.Info("stale routes swept", "count", n, "synced", synced)
	}
	r.stale = nil
	return true
}

// wanted is desired and what is still protected.
func (r *Router) wanted() route.FIB {
	if len(r.stale) == 0 {
		return r.desired
	}
	w := maps.Clone(r.desired)
	for p := range r.stale {
		if have, ok := r.actual[p]; ok {
			if _, ok := w[p]; !ok {
				w[p] = have
			}
		}
	}
	return w
}

// planFor looks only at the prefixes that were spoken about.
func (r *Router) planFor(n news) route.Plan {
	plan := make(route.Plan, 0, len(n.changed)+len(n.gone))
	for _, l := range n.changed {
		plan = route.Step(plan, l.Prefix, r.desired, r.actual)
	}
	for _, p := range append(n.gone, r.again()...) {
		if !slices.ContainsFunc(plan, func(c route.Change) bool { return c.Prefix == p }) {
			plan = route.Step(plan, p, r.desired, r.actual)
		}
	}
	plan.Sort()
	return plan
}
