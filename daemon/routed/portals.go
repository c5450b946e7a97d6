// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/control"
)

const (
	askPortald   = 500 * time.Millisecond
	portaldGrace = 5 * time.Second // a portald that restarts does not shake the fabric
)

// vips is what portald said last, and whether the node is being drained.
type vips struct {
	mu      sync.Mutex
	portals route.Portals
	stage   route.Drain
	turn    int // counts drains and undrains, so that a late end of one does not undo the next
}

func (v *vips) now() (route.Portals, route.Drain) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.portals, v.stage
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

// enter begins a stage and returns its turn.
func (v *vips) enter(s route.Drain) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stage = s
	v.turn++
	return v.turn
}

// leave ends Leaving, unless something else was asked for meanwhile.
func (v *vips) leave(turn int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.turn != turn {
		return false
	}
	v.stage = route.Departed
	return true
}

// portaldStatus is the part of portald's GET /status that announcements rest on.
type portaldStatus struct {
	Synced    bool           `json:"synced"`
	LastError string         `json:"lastError"`
	Nets      []netip.Prefix `json:"portalNets"`
	Portals   []struct {
		VIP       netip.Addr       `json:"vip"`
		Endpoints []netip.AddrPort `json:"endpoints"`
	} `json:"portals"`
}

func (s portaldStatus) portals() route.Portals {
	p := route.Portals{Nets: s.Nets}
	if !s.Synced {
		p.Problem = "portald has not programmed everything: " + cmp.Or(s.LastError, "starting")
	}
	for _, x := range s.Portals {
		p.VIPs = append(p.VIPs, route.VIP{Addr: x.VIP, Ready: len(x.Endpoints)})
	}
	return p
}

// followPortald asks portald what it has programmed, for as long as anything of it is to be announced.
func (d *wiring) followPortald(ctx context.Context) error {
	client := control.Dial(d.conf.Load().portald)
	tick := time.NewTicker(askPortald)
	defer tick.Stop()
	var answered time.Time
	for {
		if d.conf.Load().vips != (route.VIPWish{}) {
			var st portaldStatus
			p, _ := d.vips.now()
			err := client.Get(ctx, "/status", &st)
			switch {
			case err == nil:
				answered = time.Now()
				p = st.portals()
			case time.Since(answered) > portaldGrace:
				p.Problem = "portald does not answer"
			}
			if d.vips.heard(p) && ctx.Err() == nil {
				d.router.SetIntents(d.intents())
				d.loop.Trigger()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// drained puts a stage in force.
func (d *wiring) drained(what string) {
	d.log.Info(what)
	if d.state.speaking() == nil {
		return // nothing is announced yet; it will begin as it is now
	}
	d.router.SetIntents(d.intents())
	d.loop.Trigger()
}

// serveDrain announces that the service addresses leave, waits, withdraws them, and answers.
func (d *wiring) serveDrain(w http.ResponseWriter, r *http.Request) {
	wait, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil || wait < 0 {
		http.Error(w, "for: not a duration", http.StatusBadRequest)
		return
	}
	turn := d.vips.enter(route.Leaving)
	d.drained("draining: service addresses leave")
	time.Sleep(wait) // also when the client gives up
	if d.vips.leave(turn) {
		d.drained("drained: service addresses withdrawn")
	}
	control.WriteJSON(w, struct{}{})
}

func (d *wiring) serveUndrain(w http.ResponseWriter, _ *http.Request) {
	d.vips.enter(route.Serving)
	d.drained("undrained: service addresses are announced again")
	control.WriteJSON(w, struct{}{})
}

// drain is both commands.
func drain(ctx context.Context, verb string, args []string, w io.Writer) error {
	f := pflag.NewFlagSet("routed "+verb, pflag.ContinueOnError)
	f.SetOutput(w)
	socket := f.String("socket", mark.RoutedSocket, "`path` of the control socket")
	var wait time.Duration
	if verb == "drain" {
		f.DurationVar(&wait, "for", 10*time.Second, "`time` between saying that service addresses leave (GRACEFUL_SHUTDOWN) and withdrawing them")
	}
	if err := f.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	path := "/" + verb
	if verb == "drain" {
		path += "?for=" + url.QueryEscape(wait.String())
	}
	if err := control.Dial(*socket).Post(ctx, path, nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, verb+"ed")
	return err
}
