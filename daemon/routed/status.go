// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/core/version"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/engine/router"
)

// Status is the answer of GET /status.
type Status struct {
	Node       string         `json:"node"`
	Version    string         `json:"version"`
	Since      time.Time      `json:"since"`
	ASN        uint32         `json:"asn,omitempty"`
	RouterID   netip.Addr     `json:"routerID,omitzero"`
	PodSubnets []netip.Prefix `json:"podSubnets,omitempty"`
	Waiting    string         `json:"waiting,omitempty"`          // why nothing happens yet
	Config     string         `json:"configuration,omitempty"`    // why the newest configuration is not in force
	Leaving    string         `json:"serviceAddresses,omitempty"` // "leaving" or "withdrawn" while the node is drained
	Sessions   []bgp.Session  `json:"sessions"`
	router.Status
}

// state is what the control socket can tell at any time.
type state struct {
	mu      sync.Mutex
	base    Status
	speaker *bgp.Speaker
	router  *router.Router
	vips    *vips // nil: none yet
}

func newState(cfg config) *state {
	return &state{base: Status{Node: cfg.node, Version: version.Version, Since: time.Now(), PodSubnets: cfg.podSubnets, Waiting: starting}}
}

func (s *state) waiting(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base.Waiting = why
}

const starting = "starting"

// stillStarting gives a reason for it, where there is none yet.
func (s *state) stillStarting(why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base.Waiting != starting {
		return false
	}
	s.base.Waiting = why
	return true
}

// configured notes why the newest configuration is not in force; "" means that it is.
func (s *state) configured(problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base.Config = problem
}

// reconfigured takes over what a new configuration changes of what can be told.
func (s *state) reconfigured(now config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base.PodSubnets = now.podSubnets
}

func (s *state) running(id identity, sp *bgp.Speaker, r *router.Router, v *vips) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vips = v
	s.base.ASN, s.base.RouterID, s.base.Waiting = id.asn, id.routerID, ""
	s.speaker, s.router = sp, r
}

// speaking is the speaker, or nil before there is one.
func (s *state) speaking() *bgp.Speaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.speaker
}

func (s *state) status(ctx context.Context) (Status, error) {
	s.mu.Lock()
	st, sp, r, v := s.base, s.speaker, s.router, s.vips
	s.mu.Unlock()
	if sp == nil {
		return st, nil
	}
	_, stage := v.now()
	st.Leaving = [...]string{route.Serving: "", route.Leaving: "leaving", route.Departed: "withdrawn"}[stage]
	st.Status = r.Status()
	var err error
	st.Sessions, err = sp.Sessions(ctx)
	return st, err
}

// status asks the running daemon and prints its answer.
func status(ctx context.Context, args []string, w io.Writer) error {
	f := pflag.NewFlagSet("routed status", pflag.ContinueOnError)
	f.SetOutput(w)
	asJSON := f.Bool("json", false, "print everything as JSON")
	socket := f.String("socket", mark.RoutedSocket, "`path` of the control socket")
	if err := f.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var st Status
	if err := control.Dial(*socket).Get(ctx, "/status", &st); err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(st)
	}
	_, err := io.WriteString(w, st.table(time.Now()))
	return err
}

// table is what a person reads.
func (s Status) table(now time.Time) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	since := func(at time.Time) string { return now.Sub(at).Truncate(time.Second).String() }
	fmt.Fprintf(t, "node %s, ASN %d, router ID %s, up %s\n", s.Node, s.ASN, s.RouterID, since(s.Since))
	if s.Waiting != "" {
		fmt.Fprintf(t, "waiting: %s\n", s.Waiting)
	}
	if s.Config != "" {
		fmt.Fprintf(t, "configuration not in force: %s\n", s.Config)
	}
	if s.Leaving != "" {
		fmt.Fprintf(t, "drained: service addresses %s\n", map[bool]string{true: "leave", false: "are withdrawn"}[s.Leaving == "leaving"])
	}
	fmt.Fprint(t, "\nPEER\tADDRESS\tASN\tSTATE\tBFD\tSINCE\tIN\tOUT\tPROBLEM\n")
	for _, x := range s.Sessions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", x.Peer, known(x.Address), unzero(x.ASN), x.State, dash(x.BFD), since(x.Since), x.In, x.Out, dash(x.Problem))
	}
	fmt.Fprint(t, "\nANNOUNCED\tWHY\n")
	for _, x := range s.Announced {
		fmt.Fprintf(t, "%s\t%s\n", x.Prefix, x.Why)
	}
	for _, x := range s.Held {
		fmt.Fprintf(t, "(%s)\t%s, held back: %s\n", x.Prefix, x.Why, x.Lacks)
	}
	fmt.Fprint(t, "\nROUTE\tVIA\n")
	for _, x := range s.Routes {
		var note []string
		for _, via := range x.Via {
			note = append(note, via.String())
		}
		if len(x.Via) == 0 && !x.Failed {
			note = append(note, "unreachable")
		}
		if x.Stale {
			note = append(note, "(left by an earlier process)")
		}
		if x.Failed {
			note = append(note, strings.TrimSuffix("(not in the kernel: "+x.Problem, ": ")+")")
		}
		fmt.Fprintf(t, "%s\t%s\n", x.Prefix, strings.Join(note, " "))
	}
	if len(s.Refused) > 0 {
		fmt.Fprint(t, "\nREFUSED\tFROM\tREASON\n")
		for _, x := range s.Refused {
			fmt.Fprintf(t, "%s\t%s\t%s\n", x.Prefix, x.Peer, x.Reason)
		}
	}
	_ = t.Flush() // a strings.Builder takes everything
	return b.String()
}

func known(a netip.Addr) string {
	if a.IsValid() {
		return a.String()
	}
	return "-"
}

func unzero(n uint32) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func dash(s string) string { return cmp.Or(s, "-") }
