// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/control"
)

const (
	askPortald   = 500 * time.Millisecond // again, where it did not answer
	portaldGrace = 5 * time.Second        // a portald that restarts does not shake the fabric
	portaldFirst = 2 * time.Second        // for an answer that portald has
	portaldNews  = 4 * time.Second        // for one that it waits with, which is two seconds at most
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
// answers when there is news, and every two seconds when there are none: it need not be asked again and again, and one that
// hangs is noticed. recalled says that its word is an earlier process's until it speaks.
func (d *wiring) followPortald(ctx context.Context) error {
	client := control.Dial(d.conf.Load().portald)
	var answered time.Time // until then
	state, hears := "", d.recalled
	for ctx.Err() == nil {
		var st portaldVIPs
		wished, p := d.conf.Load().vips != (route.VIPWish{}), route.Portals{}
		var err error
		asked := time.Now()
		if wished {
			p, _ = d.vips.now()
			st, err = askFor(ctx, client, state)
		}
		state = st.State
		switch {
		case !wished:
		case err == nil:
			hears, p = true, st.portals()
		case hears && errors.Is(err, context.DeadlineExceeded):
			hears, answered = false, asked
		case hears:
			hears, answered = false, time.Now()
		case time.Since(answered) > portaldGrace:
			p.Problem = "portald does not answer"
		}
		if d.vips.heard(p) && ctx.Err() == nil {
			d.rememberPortals(st)
			d.router.SetIntents(d.intents())
			d.loop.Trigger()
		}
		if wished && err == nil {
			continue
		}
		sleep(ctx, askPortald)
	}
	return nil
}

// askFor waits for news of portald; without a state it has some at once.
func askFor(ctx context.Context, c *control.Client, state string) (st portaldVIPs, err error) {
	within := portaldNews
	if state == "" {
		within = portaldFirst
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err = c.Get(ctx, "/vips?after="+url.QueryEscape(state), &st)
	return st, err
}

// portalsFile keeps what portald said last, so that service addresses stay announced when both daemons restart at once, as
// with a new release. It lies on tmpfs.
func (d *wiring) portalsFile() string {
	return filepath.Join(filepath.Dir(d.conf.Load().socket), "portals.json")
}

// rememberPortals keeps what portald said; nothing, when it has said nothing that can be relied on.
func (d *wiring) rememberPortals(st portaldVIPs) {
	var err error
	if st.Synced {
		err = keep(d.portalsFile(), st)
	} else {
		err = forget(d.portalsFile())
	}
	if err != nil {
		d.log.Warn("cannot keep what portald said for a restart", "problem", err)
	}
}

// forget removes a file that may be there.
func forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// recallPortals takes up what portald told an earlier process. It holds for as long as portald's own restart may take.
func (d *wiring) recallPortals() {
	var st portaldVIPs
	text, err := os.ReadFile(d.portalsFile())
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	switch {
	case err == nil && st.Synced:
		d.recalled = d.vips.heard(st.portals())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		d.log.Warn("cannot read what portald said before", "problem", err)
	}
}
