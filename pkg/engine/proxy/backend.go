// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/balance"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// backend is one endpoint of one portal with what the proxy knows of it. It lives as long as the endpoint is listed.
type backend struct {
	addr   netip.AddrPort
	since  time.Time    // when it was added; zero: with the portal
	active atomic.Int64 // connections open now
	weight atomic.Int64 // as the settings say

	down    atomic.Bool  // an active check says so
	failed  atomic.Int64 // connects that failed in a row
	resting atomic.Int64 // until when it is left alone after such failures, in Unix nanoseconds; 0: not at all

	stop context.CancelFunc // ends its checks; nil: it has none
}

// newBackend begins to watch an endpoint.
func (f *front) newBackend(addr netip.AddrPort, since time.Time, tune tuning.Settings) *backend {
	b := &backend{addr: addr, since: since}
	if tune.Check != tuning.NoCheck {
		ctx, stop := context.WithCancel(f.p.ctx)
		b.stop = stop
		f.p.live.Go(func() { f.watch(ctx, b, tune) })
	}
	return b
}

// retire ends what newBackend began.
func (b *backend) retire() {
	if b.stop != nil {
		b.stop()
	}
}

// worked notes that the endpoint took a connection.
func (b *backend) worked() {
	if b.failed.Load() != 0 {
		b.failed.Store(0)
		b.resting.Store(0)
	}
}

// refused notes that the endpoint did not take a connection, and reports whether it has to rest now: after EjectAfter
// failures for EjectFor, and twice as long each time it fails again right after its rest.
func (b *backend) refused(tune tuning.Settings) bool {
	n := b.failed.Add(1)
	if tune.EjectAfter == 0 || n < int64(tune.EjectAfter) {
		return false
	}
	again := min(n-int64(tune.EjectAfter), 3)
	until := time.Now().Add(tune.EjectFor << again).UnixNano()
	was := b.resting.Swap(until)
	return was <= time.Now().UnixNano()
}

// usable reports whether the endpoint may be tried now.
func (b *backend) usable() bool {
	if b.down.Load() {
		return false
	}
	until := b.resting.Load()
	return until == 0 || until <= time.Now().UnixNano()
}

// state is for people and machines that ask.
func (b *backend) state() traffic.State {
	switch {
	case b.down.Load():
		return traffic.Down
	case !b.usable():
		return traffic.Resting
	}
	return traffic.Up
}

// group is the endpoints that one group of clients may be sent to.
type group struct {
	all  []*backend
	ring balance.Maglev // indexes of all; nil: the picker chooses
}

func newGroup(all []*backend, kind tuning.Balance) group {
	g := group{all: all}
	if kind != tuning.Maglev {
		return g
	}
	addrs, weights := make([]netip.AddrPort, len(all)), make([]int, len(all))
	for i, b := range all {
		addrs[i], weights[i] = b.addr, int(b.weight.Load())
	}
	g.ring = balance.NewMaglev(addrs, weights)
	return g
}

// choose takes an endpoint that works, has weight and has not been tried; if there is none, a sick one that has not been
// tried (better a sick one than none: the checks may be wrong), then any. It returns nil without endpoints.
func (t *target) choose(client netip.Addr, tried []*backend) *backend {
	g := t.in
	if len(t.inside) > 0 && !within(t.inside, client) {
		g = t.out
	}
	fresh := func(b *backend) bool { return !slices.Contains(tried, b) }
	from := only(g.all, func(b *backend) bool { return b.usable() && b.weight.Load() > 0 && fresh(b) })
	if len(from) == 0 {
		from = only(g.all, fresh)
	}
	if len(from) == 0 {
		from = g.all
	}
	if len(from) == 0 {
		return nil
	}
	all := len(from) == len(g.all)
	if i := g.ring.For(client, func(i int) bool { return all || slices.Contains(from, g.all[i]) }); i >= 0 {
		return g.all[i]
	}
	return t.picker.pick(client, from)
}

// only returns the backends that ok likes. It makes a new slice only if it does not like all of them.
func only(all []*backend, ok func(*backend) bool) []*backend {
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
