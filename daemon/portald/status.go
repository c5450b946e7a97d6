// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/engine/proxy"
)

// report is the answer to GET /status. Its JSON is read by routed, l3ctl and the portal plugin: fields are only added.
type report struct {
	Version   string         `json:"version"`
	Mode      string         `json:"mode"`
	Synced    bool           `json:"synced"`             // the kernel holds what the newest manifests say
	LastSync  time.Time      `json:"lastSync,omitzero"`  // the last time that was so
	LastError string         `json:"lastError,omitzero"` // why it is not so
	Nets      []netip.Prefix `json:"portalNets"`
	Services  int            `json:"services"`
	Endpoints int            `json:"endpoints"`
	Portals   []portalReport `json:"portals"`
	Problems  []string       `json:"problems"` // manifests and services that are not in force, and why
}

// portalReport is one portal as it was last programmed.
type portalReport struct {
	VIP       netip.Addr       `json:"vip"`
	Protocol  string           `json:"protocol"`
	Port      uint16           `json:"port"`
	Service   string           `json:"service"`            // namespace/name
	PortName  string           `json:"portName,omitempty"` // of the service's port
	Endpoints []netip.AddrPort `json:"endpoints"`
	Mode      string           `json:"mode"`                // who answers
	ProxyPort uint16           `json:"proxyPort,omitempty"` // userspace mode
	Traffic   *proxy.Stats     `json:"traffic,omitempty"`   // userspace mode
}

// handler answers on the control socket.
func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { control.WriteJSON(w, d.report()) })
	mux.HandleFunc("GET /portals", func(w http.ResponseWriter, _ *http.Request) { control.WriteJSON(w, d.report().Portals) })
	mux.HandleFunc("GET /healthz", d.serveHealth)
	mux.HandleFunc("GET /metrics", d.serveMetrics)
	return mux
}

func (d *daemon) serveHealth(w http.ResponseWriter, _ *http.Request) {
	if err := d.healthy(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok") //nolint:errcheck // the client may have gone
}

func (d *daemon) report() report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := report{
		Version: d.version, Mode: d.c.mode, Synced: d.behind.IsZero() && !d.lastSync.IsZero(), LastSync: d.lastSync, LastError: d.lastError,
		Nets: d.c.nets, Services: d.applied.services, Portals: []portalReport{}, Problems: slices.Sorted(maps.Keys(d.problems)),
	}
	if r.Problems == nil {
		r.Problems = []string{}
	}
	stats := d.user.proxy.Stats()
	for _, key := range sortedKeys(d.applied.table) {
		p := d.applied.table.Portals[key]
		one := portalReport{
			VIP: key.Addr, Protocol: key.Protocol.String(), Port: key.Port, Service: p.Service.Name.String(), PortName: p.Service.Port,
			Endpoints: p.Endpoints, Mode: modeNFTables, ProxyPort: d.ports[key],
		}
		if one.Endpoints == nil {
			one.Endpoints = []netip.AddrPort{}
		}
		if s, ok := stats[key]; ok {
			one.Mode, one.Traffic = modeUserspace, &s
		}
		r.Endpoints += len(p.Endpoints)
		r.Portals = append(r.Portals, one)
	}
	return r
}

// lag is how long the kernel may be behind the manifests before health turns bad.
const lag = 10 * time.Second

// healthy tells why the node should not be trusted to answer portals now.
func (d *daemon) healthy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.lastSync.IsZero() && d.lastError == "":
		return errors.New("not synced yet")
	case d.lastSync.IsZero():
		return fmt.Errorf("not synced yet: %s", d.lastError)
	case !d.behind.IsZero() && time.Since(d.behind) > lag:
		return fmt.Errorf("behind since %s: %s", d.behind.Format(time.RFC3339), cmp.Or(d.lastError, "a change is not programmed yet"))
	}
	return nil
}

// status is the command "portald status": it asks the running portald and prints the answer.
func status(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("portald status", flag.ContinueOnError)
	fs.SetOutput(stderr)
	asJSON := fs.Bool("json", false, "print the answer as it came")
	socket := fs.String("socket", mark.PortaldSocket, "control socket `path`")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usageError{err}
	}
	var r report
	if err := control.Dial(*socket).Get(ctx, "/status", &r); err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.print(stdout)
}

func (r report) print(out io.Writer) error {
	state := "in force since " + r.LastSync.Format(time.RFC3339)
	if !r.Synced {
		state = "NOT in force: " + cmp.Or(r.LastError, "not synced yet")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "portald %s, mode %s, %d services, %d endpoints, %s\n", r.Version, r.Mode, r.Services, r.Endpoints, state) //nolint:errcheck // Flush tells
	fmt.Fprintln(w, "SERVICE\tPORTAL\tPROXY PORT\tENDPOINTS")                                                                 //nolint:errcheck // Flush tells
	for _, p := range r.Portals {
		ends := make([]string, len(p.Endpoints))
		for i, e := range p.Endpoints {
			ends[i] = e.String()
		}
		port := "-"
		if p.ProxyPort != 0 {
			port = fmt.Sprint(p.ProxyPort)
		}
		name := p.Service
		if p.PortName != "" {
			name += ":" + p.PortName
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, p.key(), port, //nolint:errcheck // Flush tells
			cmp.Or(strings.Join(ends, " "), "none: refused"))
	}
	for _, p := range r.Problems {
		fmt.Fprintln(w, "problem:", p) //nolint:errcheck // Flush tells
	}
	return w.Flush()
}

func sortedKeys(t portal.Table) []portal.Key {
	return slices.SortedFunc(maps.Keys(t.Portals), func(a, b portal.Key) int {
		return cmp.Or(cmp.Compare(t.Portals[a].Service.String(), t.Portals[b].Service.String()), a.Compare(b))
	})
}
