// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/netip"
	"time"

	"github.com/l3edge/l3edge/pkg/core/balance"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/engine/proxy/probe"
)

// backend is one endpoint of one portal and who watches it. It lives as long as the endpoint is listed.
type backend struct {
	balance.Endpoint
	stop context.CancelFunc // ends its checks; nil: it has none
}

// newBackend begins to watch an endpoint.
func (f *front) newBackend(addr netip.AddrPort, since time.Time, tune tuning.Settings) *backend {
	b := &backend{Endpoint: balance.Endpoint{Addr: addr, Since: since}}
	if tune.Check != tuning.NoCheck {
		ctx, stop := context.WithCancel(f.p.ctx)
		b.stop = stop
		log := f.p.o.Log.With("portal", f.key.String(), "endpoint", addr.String(), "check", string(tune.Check))
		f.p.live.Go(func() {
			probe.Watch(ctx, addr, tune, &b.Down, func(err error) {
				if err != nil {
					log.Warn("endpoint is down", "error", err)
				} else {
					log.Info("endpoint is up again")
				}
			})
		})
	}
	return b
}

// retire ends what newBackend began.
func (b *backend) retire() {
	if b.stop != nil {
		b.stop()
	}
}

// state is for people and machines that ask.
func (b *backend) state(now time.Time) traffic.State {
	switch {
	case b.Down.Load():
		return traffic.Down
	case !b.Usable(now):
		return traffic.Resting
	}
	return traffic.Up
}

// choose is for a client, who has tried some in vain. It returns nil without endpoints.
func (t *target) choose(client netip.Addr, tried []*balance.Endpoint) *balance.Endpoint {
	g := t.in
	if len(t.inside) > 0 && !within(t.inside, client) {
		g = t.out
	}
	return g.Choose(t.picker, client, tried, time.Now())
}
