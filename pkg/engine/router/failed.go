// SPDX-License-Identifier: Apache-2.0

package router

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// failure is a change that the kernel refused.
type failure struct {
	problem string
	told    bool
}

// What the kernel refused is tried again after a pause that grows.
const (
	pauseFirst = time.Second
	pauseMost  = trust
)

// remember notes what the kernel refused. The first time it may be that the kernel is not as we think, as when a link has
// just come back: it is read again and nobody is told. What it refuses then is told once, and tried again now and then
// without another look at all the rest.
func (r *Router) remember(plan route.Plan, failures []route.Failure) {
	if len(r.failed) == 0 && len(failures) == 0 {
		return
	}
	now := map[netip.Prefix]bool{}
	for _, f := range failures {
		now[f.Change.Prefix] = true
	}
	for _, c := range plan {
		if !now[c.Prefix] {
			delete(r.failed, c.Prefix)
		}
	}
	maps.DeleteFunc(r.failed, func(p netip.Prefix, _ *failure) bool { return len(route.Step(nil, p, r.desired, r.actual)) == 0 })
	var fresh []route.Failure
	first := false
	for _, f := range failures {
		x := r.failed[f.Change.Prefix]
		if x == nil {
			x, first = &failure{}, true
			r.failed[f.Change.Prefix] = x
		} else if !x.told {
			x.told = true
			fresh = append(fresh, f)
		}
		x.problem = f.Err.Error()
	}
	r.tellFailed(fresh)
	switch {
	case len(r.failed) == 0:
		r.pause = 0
		return
	case first:
		r.pause = 0
		r.hear(func() { r.news.reread = true })
		r.wake(0)
		return
	case len(failures) == 0: // nothing was tried
	default:
		r.pause = min(max(2*r.pause, pauseFirst), pauseMost)
		r.retry = time.Now().Add(r.pause)
	}
	r.wake(max(time.Until(r.retry), 0))
}

func (r *Router) tellFailed(fresh []route.Failure) {
	for i, f := range fresh {
		if i == some {
			r.o.Log.Error("more routes refused by the kernel", "count", len(fresh)-i)
			return
		}
		r.o.Log.Log(context.Background(), slog.LevelError, "route refused by the kernel", "change", f.Change.String(), "error", f.Err)
	}
}

// again are the prefixes whose time has come to be tried again.
func (r *Router) again() []netip.Prefix {
	if len(r.failed) == 0 || time.Now().Before(r.retry) {
		return nil
	}
	return slices.SortedFunc(maps.Keys(r.failed), netip.Prefix.Compare)
}
