// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Group is the endpoints that one group of clients may be sent to. It is immutable.
type Group struct {
	All  []*Endpoint
	ring Maglev // indexes of All; nil: the picker chooses
}

// NewGroup is the group of these endpoints with the weights that they have now.
func NewGroup(all []*Endpoint, kind tuning.Balance) Group {
	g := Group{All: all}
	if kind != tuning.Maglev {
		return g
	}
	addrs, weights := make([]netip.AddrPort, len(all)), make([]int, len(all))
	for i, e := range all {
		addrs[i], weights[i] = e.Addr, int(e.Weight.Load())
	}
	g.ring = NewMaglev(addrs, weights)
	return g
}

// Choose takes an endpoint that works, has weight and has not been tried; if there is none, a sick one that has not been
// tried (better a sick one than none: the checks may be wrong), then any. It returns nil without endpoints.
func (g Group) Choose(p Picker, client netip.Addr, tried []*Endpoint, now time.Time) *Endpoint {
	fresh := func(e *Endpoint) bool { return !slices.Contains(tried, e) }
	from := only(g.All, func(e *Endpoint) bool { return e.Usable(now) && e.Weight.Load() > 0 && fresh(e) })
	if len(from) == 0 {
		from = only(g.All, fresh)
	}
	if len(from) == 0 {
		from = g.All
	}
	if len(from) == 0 {
		return nil
	}
	all := len(from) == len(g.All)
	if i := g.ring.For(client, func(i int) bool { return all || slices.Contains(from, g.All[i]) }); i >= 0 {
		return g.All[i]
	}
	return p.Pick(client, from, now)
}

// only returns the endpoints that ok likes. It makes a new slice only if it does not like all of them.
func only(all []*Endpoint, ok func(*Endpoint) bool) []*Endpoint {
	for i, b := range all {
		if !ok(b) {
			out := slices.Clone(all[:i])
			for _, b := range all[i+1:] {
				if ok(b) {
					out = append(out, b)
				}
			}
			return out
		}
	}
	return all
}
