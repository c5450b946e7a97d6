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
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// longest is how long a caller waits for news of GET /vips before it hears that there are none: routed takes a portald that
// is silent for twice as long for dead.
const longest = 2 * time.Second

// controlHandler answers on the control socket.
func controlHandler(k *portals.Keeper) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { control.WriteJSON(w, k.Report()) })
	mux.HandleFunc("GET /portals", func(w http.ResponseWriter, _ *http.Request) { control.WriteJSON(w, k.Report().Portals) })
	mux.HandleFunc("GET /vips", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), longest)
		defer cancel()
		control.WriteJSON(w, k.VIPs(ctx, r.URL.Query().Get("after")))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := k.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok") //nolint:errcheck // the client may have gone
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = k.WriteMetrics(w) // the client may have gone
	})
	return mux
}

// metricsHandler answers over TCP: only what may be seen by everybody on this host, and a look inside.
func metricsHandler(k *portals.Keeper) http.Handler {
	all, mux := controlHandler(k), http.NewServeMux()
	mux.Handle("GET /metrics", all)
	mux.Handle("GET /healthz", all)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return mux
}

// serveTCP answers over TCP until ctx ends.
func serveTCP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
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
	var r portals.Report
	if err := control.Dial(*socket).Get(ctx, "/status", &r); err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return printReport(r, stdout)
}

func printReport(r portals.Report, out io.Writer) error {
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
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name(), p.Key(), port, //nolint:errcheck // Flush tells
			cmp.Or(strings.Join(ends, " "), "none: refused"))
	}
	for _, p := range r.Problems {
		fmt.Fprintln(w, "problem:", p) //nolint:errcheck // Flush tells
	}
	return w.Flush()
}
