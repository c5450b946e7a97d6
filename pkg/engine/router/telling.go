// SPDX-License-Identifier: Apache-2.0

package router

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// some is how many lines of one kind a round logs one by one; more are told as a number.
const some = 16

// tellEach logs a line per prefix, or one for all when they are many.
func (r *Router) tellEach(level slog.Level, msg string, prefixes []netip.Prefix) {
	if len(prefixes) > some {
		r.o.Log.Log(context.Background(), level, msg, "prefix", prefixes[0], "count", len(prefixes))
		return
	}
	for _, p := range prefixes {
		r.o.Log.Log(context.Background(), level, msg, "prefix", p)
	}
}

// entries are those of the prefixes that are in the table.
func entries(table route.FIB, prefixes []netip.Prefix) route.FIB {
	out := make(route.FIB, len(prefixes))
	for _, p := range prefixes {
		if e, ok := table[p]; ok {
			out[p] = e
		}
	}
	return out
}

// byOthers are the routes that another program removed: those that went with their link the kernel did.
func (r *Router) byOthers(gone route.FIB, links []int) []netip.Prefix {
	up := map[int]bool{}
	for _, index := range r.topo.Links {
		up[index] = true
	}
	var out []netip.Prefix
	for p, e := range gone {
		if !slices.ContainsFunc(e.Hops, func(h route.NextHop) bool { return slices.Contains(links, h.Link) || !up[h.Link] }) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// tellTaken says that others removed routes, once a second: whoever flushes a table has the kernel tell of each route.
func (r *Router) tellTaken() {
	if len(r.taken) == 0 {
		return
	}
	if rest := time.Second - time.Since(r.told); rest > 0 {
		r.wake(rest)
		return
	}
	r.tellEach(slog.LevelWarn, "route removed by another program, putting it back", r.taken)
	r.taken, r.told = nil, time.Now()
}

// unknown returns the refusals that are not in before.
func unknown(before, now []route.Refused) []route.Refused {
	return slices.DeleteFunc(slices.Clone(now), func(x route.Refused) bool { return slices.Contains(before, x) })
}

// tellRefused logs a line per reason.
func (r *Router) tellRefused(fresh []route.Refused) {
	slices.SortFunc(fresh, func(a, b route.Refused) int {
		return cmp.Or(a.Peer.Compare(b.Peer), cmp.Compare(a.Reason, b.Reason), a.Prefix.Compare(b.Prefix))
	})
	lines := 0
	for i := 0; i < len(fresh); {
		x, from := fresh[i], i
		for i < len(fresh) && fresh[i].Peer == x.Peer && fresh[i].Reason == x.Reason {
			i++
		}
		if lines++; lines > some {
			r.o.Log.Warn("more routes refused", "count", len(fresh)-from)
			return
		}
		if n := i - from; n > 1 {
			r.o.Log.Warn("routes refused", "count", n, "prefix", x.Prefix, "peer", x.Peer, "reason", x.Reason)
		} else {
			r.o.Log.Warn("route refused", "prefix", x.Prefix, "peer", x.Peer, "reason", x.Reason)
		}
	}
}
