// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/conntrack"
	"github.com/l3edge/l3edge/pkg/edge/control"
)

// enter begins a stage and returns its turn.
func (v *vips) enter(s route.Drain) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stage = s
	v.turn++
	return v.turn
}

// isTurn reports that nothing else was asked for since.
func (v *vips) isTurn(turn int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.turn == turn
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

// drainFile is there while the node is drained. It lies on tmpfs: a restart of routed does not undo a drain, a boot does.
func (d *wiring) drainFile() string {
	return filepath.Join(filepath.Dir(d.conf.Load().socket), "drained")
}

// recall takes up a drain that an earlier process began. Its time is over: a restart takes longer than others need to
// prefer another way.
func (d *wiring) recall() {
	_, err := os.Stat(d.drainFile())
	switch {
	case err == nil:
		d.vips.enter(route.Departed)
		d.log.Info("drained before the restart: service addresses stay withdrawn", "file", d.drainFile())
	case !errors.Is(err, fs.ErrNotExist):
		d.log.Warn("cannot tell whether the node is drained", "problem", err)
	}
}

// drained puts a stage in force.
func (d *wiring) drained(what string, keyvals ...any) {
	d.log.Info(what, keyvals...)
	if d.state.speaking() == nil {
		return // nothing is announced yet; it will begin as it is now
	}
	d.router.SetIntents(d.intents())
	d.loop.Trigger()
}

// Drained is the answer of POST /drain.
type Drained struct {
	Flows int           `json:"flows"` // that were left when the addresses were withdrawn; -1: not counted
	Took  time.Duration `json:"took"`  // nanoseconds
}

// serveDrain announces that the service addresses leave, waits for a time and, if asked, until their flows have ebbed,
// withdraws them, and answers.
func (d *wiring) serveDrain(w http.ResponseWriter, r *http.Request) {
	wait, err := time.ParseDuration(r.URL.Query().Get("for"))
	ebb, err2 := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil || err2 != nil || wait < 0 || ebb < 0 {
		http.Error(w, "for, wait: not a duration", http.StatusBadRequest)
		return
	}
	began := time.Now()
	if err := os.WriteFile(d.drainFile(), nil, 0o600); err != nil {
		http.Error(w, fmt.Sprintf("remember the drain: %v", err), http.StatusInternalServerError)
		return
	}
	turn := d.vips.enter(route.Leaving)
	d.drained("draining: service addresses leave")
	flows := d.ebb(turn, began.Add(wait), began.Add(max(wait, ebb))) // also when the client gives up
	if d.vips.leave(turn) {
		d.drained("drained: service addresses withdrawn", "flows", flows, "took", time.Since(began).Round(time.Second))
	}
	control.WriteJSON(w, Drained{Flows: flows, Took: time.Since(began)})
}

// ebb waits until earliest, and then until no flow is left, at most until latest. It returns how many are; -1: unknown.
func (d *wiring) ebb(turn int, earliest, latest time.Time) int {
	time.Sleep(time.Until(earliest))
	for {
		n, err := d.flows()
		if err != nil {
			d.log.Warn("cannot count flows", "problem", err)
			n = -1
		}
		if n == 0 || !time.Now().Before(latest) || !d.vips.isTurn(turn) {
			return n
		}
		time.Sleep(min(time.Second, time.Until(latest)))
	}
}

// flows counts what others still send to the service addresses that leave.
func (d *wiring) flows() (int, error) {
	conf := d.conf.Load()
	portals, _ := d.vips.now()
	var to []netip.Prefix
	for _, i := range route.VIPs(conf.vips, portals, route.Leaving) {
		to = append(to, i.Prefix)
	}
	own, err := hostAddresses(conf.podSubnets)
	if err != nil {
		return 0, err
	}
	in := func(ps []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return conntrack.Count(func(from, dst netip.Addr) bool {
		return in(to, dst) && !in(conf.podSubnets, from) && !slices.Contains(own, from)
	})
}

func (d *wiring) serveUndrain(w http.ResponseWriter, _ *http.Request) {
	if err := os.Remove(d.drainFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		http.Error(w, fmt.Sprintf("forget the drain: %v", err), http.StatusInternalServerError)
		return
	}
	d.vips.enter(route.Serving)
	d.drained("undrained: service addresses are announced again")
	control.WriteJSON(w, struct{}{})
}

// drain is both commands.
func drain(ctx context.Context, verb string, args []string, w io.Writer) error {
	f := pflag.NewFlagSet("routed "+verb, pflag.ContinueOnError)
	f.SetOutput(w)
	socket := f.String("socket", mark.RoutedSocket, "`path` of the control socket")
	var least, ebb time.Duration
	if verb == "drain" {
		f.DurationVar(&least, "for", 10*time.Second, "`time` between saying that service addresses leave (GRACEFUL_SHUTDOWN) and withdrawing them, at least")
		f.DurationVar(&ebb, "wait", 0, "longest `time` to wait until no connection to them from outside the node is left; without a time: 5m")
		f.Lookup("wait").NoOptDefVal = "5m"
	}
	if err := f.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if verb == "undrain" {
		if err := control.Dial(*socket).Post(ctx, "/undrain", nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "undrained")
		return err
	}
	var done Drained
	ask := url.Values{"for": {least.String()}, "wait": {ebb.String()}}
	if err := control.Dial(*socket).Post(ctx, "/drain?"+ask.Encode(), nil, &done); err != nil {
		return err
	}
	said := []string{"drained"}
	if ebb > 0 && done.Flows > 0 {
		said = append(said, fmt.Sprintf("%d connections were left after %s", done.Flows, done.Took.Round(time.Second)))
	}
	_, err := fmt.Fprintln(w, strings.Join(said, ": "))
	return err
}
