// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"reflect"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/control"
)

const (
	askPortald   = 500 * time.Millisecond // again, where it did not answer
	portaldGrace = 5 * time.Second        // a portald that restarts does not shake the fabric
)

// vips is what portald said last, and whether the node is being drained.
type vips struct {
	mu      sync.Mutex
	portals route.Portals
	stage   route.Drain
	cluster route.Drain // what the cluster wants, with wishes as turn
	wishes  int
	turn    int // counts drains and undrains, so that a late end of one does not undo the next
}

func (v *vips) now() (route.Portals, route.Drain) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.portals, max(v.stage, v.cluster)
}

// heard notes what portald said and reports whether that is news.
func (v *vips) heard(p route.Portals) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if reflect.DeepEqual(p, v.portals) {
		return false
	}
	v.portals = p
	return true
}

// portaldVIPs is portald's GET /vips, that announcements rest on.
type portaldVIPs struct {
	State     string         `json:"state"`
	Synced    bool           `json:"synced"`
	LastError string         `json:"lastError"`
	Nets      []netip.Prefix `json:"portalNets"`
	VIPs      []struct {
		VIP   netip.Addr `json:"vip"`
		Ready int        `json:"ready"`
	} `json:"vips"`
}

func (s portaldVIPs) portals() route.Portals {
	p := route.Portals{Nets: s.Nets}
	if !s.Synced {
		p.Problem = "portald has not programmed everything: " + cmp.Or(s.LastError, "starting")
	}
	for _, x := range s.VIPs {
		p.VIPs = append(p.VIPs, route.VIP{Addr: x.VIP, Ready: x.Ready})
	}
	return p
}

// followPortald hears from portald what it has programmed, for as long as anything of it is to be announced. portald
// answers when there is news, and the connection ends with it: it need not be asked again and again.
func (d *wiring) followPortald(ctx context.Context) error {
	d.recall()
	client := control.Dial(d.conf.Load().portald)
	var answered time.Time // until then
	state, hears := "", false
	for ctx.Err() == nil {
		var st portaldVIPs
		wished, p := d.conf.Load().vips != (route.VIPWish{}), route.Portals{}
		var err error
		if wished {
			p, _ = d.vips.now()
			err = client.Get(ctx, "/vips?after="+url.QueryEscape(state), &st)
		}
		state = st.State
		switch {
		case !wished:
		case err == nil:
			hears, p = true, st.portals()
		case hears:
			hears, answered = false, time.Now()
		case time.Since(answered) > portaldGrace:
			p.Problem = "portald does not answer"
		}
		if d.vips.heard(p) && ctx.Err() == nil {
			d.router.SetIntents(d.intents())
			d.loop.Trigger()
		}
		if wished && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(askPortald):
		}
	}
	return nil
}
