// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/engine/router"
)

// metrics is a Status in the text format of Prometheus (exposition format 0.0.4).
func (s Status) metrics() string {
	var b strings.Builder
	family := func(name, kind, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	gauge := func(name, help string, v int) {
		family(name, "gauge", help)
		fmt.Fprintf(&b, "%s %d\n", name, v)
	}
	truth := map[bool]int{true: 1}
	gauge("routed_configuration_current", "1 when the newest configuration is in force.", truth[s.Config == ""])
	gauge("routed_waiting", "1 while the node's own address is not known yet.", truth[s.Waiting != ""])
	stale, failed := 0, 0
	for _, r := range s.Routes {
		stale += truth[r.Stale]
		failed += truth[r.Failed]
	}
	gauge("routed_routes", "Routes of ours in the kernel.", len(s.Routes)-failed)
	gauge("routed_routes_stale", "Of these, left by an earlier process and not told again yet.", stale)
	gauge("routed_routes_unprogrammed", "Routes that the kernel refused.", failed)
	gauge("routed_announced", "Prefixes announced.", len(s.Announced))
	gauge("routed_held_back", "Prefixes that lack the proof to be announced.", len(s.Held))
	gauge("routed_prefixes_damped", "Prefixes that flap and are followed once a second.", s.Damped)
	s.writeProofs(&b)
	s.writeRefused(&b)
	family("routed_sync_total", "counter", "Rounds of bringing kernel and announcements up to date, by result.")
	fmt.Fprintf(&b, "routed_sync_total{result=\"ok\"} %d\nrouted_sync_total{result=\"error\"} %d\n", s.Rounds.OK, s.Rounds.Failed)
	family("routed_sync_seconds_total", "counter", "Time spent in these rounds.")
	fmt.Fprintf(&b, "routed_sync_seconds_total %g\n", s.Rounds.Spent.Seconds())
	family("routed_programming_seconds", "histogram", "From hearing of a change to the kernel's having the routes, per round.")
	writeHistogram(&b, "routed_programming_seconds", s.Rounds.Latency)
	for _, m := range []struct {
		name, kind, help string
		value            func(bgp.Session) uint64
	}{
		{"routed_session_up", "gauge", "1 when the session is established.", func(x bgp.Session) uint64 { return uint64(truth[x.State == bgp.Established]) }},
		{"routed_session_losses_total", "counter", "Times that the session was lost.", func(x bgp.Session) uint64 { return x.Losses }},
		{"routed_session_prefixes_in", "gauge", "Prefixes received.", func(x bgp.Session) uint64 { return x.In }},
		{"routed_session_prefixes_out", "gauge", "Prefixes sent.", func(x bgp.Session) uint64 { return x.Out }},
	} {
		family(m.name, m.kind, m.help)
		for _, x := range s.Sessions {
			fmt.Fprintf(&b, "%s{peer=%q} %d\n", m.name, x.Peer, m.value(x))
		}
	}
	family("routed_session_bfd_up", "gauge", "1 when BFD hears the peer; only peers with BFD.")
	for _, x := range s.Sessions {
		if x.BFD != "" {
			fmt.Fprintf(&b, "routed_session_bfd_up{peer=%q} %d\n", x.Peer, truth[x.BFD == "up"])
		}
	}
	return b.String()
}

func writeHistogram(b *strings.Builder, name string, h router.Histogram) {
	total := uint64(0)
	for i, n := range h.Counts {
		total += n
		end := "+Inf"
		if i < len(router.Bounds) {
			end = fmt.Sprint(router.Bounds[i].Seconds())
		}
		fmt.Fprintf(b, "%s_bucket{le=%q} %d\n", name, end, total)
	}
	fmt.Fprintf(b, "%s_sum %g\n%s_count %d\n", name, h.Sum.Seconds(), name, total)
}

// What a peer or a cluster may grow without end gets no more lines than these.
const (
	mostProofs  = 1000
	mostReasons = 15
)

// writeProofs says of each prefix of our own whether it is announced, and what it lacks.
func (s Status) writeProofs(b *strings.Builder) {
	fmt.Fprint(b, "# HELP routed_proof 1 when the prefix is announced; else the reason says what it lacks.\n# TYPE routed_proof gauge\n")
	n := 0
	line := func(prefix netip.Prefix, why, lacks string, v int) {
		if n++; n <= mostProofs {
			fmt.Fprintf(b, "routed_proof{prefix=%q,kind=%q,reason=%q} %d\n", prefix, why, lacks, v)
		}
	}
	for _, x := range s.Held {
		line(x.Prefix, x.Why, x.Lacks, 0)
	}
	for _, x := range s.Announced {
		line(x.Prefix, x.Why, "", 1)
	}
}

// writeRefused counts the ways that are not used, by reason.
func (s Status) writeRefused(b *strings.Builder) {
	fmt.Fprint(b, "# HELP routed_refused Learned ways that are not used, by reason.\n# TYPE routed_refused gauge\n")
	count := map[string]int{}
	for _, x := range s.Refused {
		if _, known := count[x.Reason]; !known && len(count) >= mostReasons {
			x.Reason = "other"
		}
		count[x.Reason]++
	}
	for _, reason := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(b, "routed_refused{reason=%q} %d\n", reason, count[reason])
	}
}

// ready is nil when peers know of this node: a session stands, and nothing waits to be programmed.
func (s Status) ready() error {
	if s.Waiting != "" {
		return errors.New(s.Waiting)
	}
	for _, r := range s.Routes {
		if r.Failed {
			return fmt.Errorf("%s is not in the kernel", r.Prefix)
		}
	}
	for _, x := range s.Sessions {
		if x.State == bgp.Established {
			return nil
		}
	}
	return errors.New("no session is established")
}

// observe adds what monitoring asks for to mux.
func (d *wiring) observe(mux *http.ServeMux) {
	with := func(f func(http.ResponseWriter, Status)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			st, err := d.state.status(r.Context())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			f(w, st)
		}
	}
	mux.HandleFunc("GET /metrics", with(func(w http.ResponseWriter, s Status) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write([]byte(s.metrics())) // the client may have gone
	}))
	mux.HandleFunc("GET /healthz", with(func(w http.ResponseWriter, _ Status) { _, _ = w.Write([]byte("ok\n")) }))
	mux.HandleFunc("GET /readyz", with(func(w http.ResponseWriter, s Status) {
		if err := s.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	}))
}

// profiles are for the control socket only.
func profiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
}

// serveMetrics answers over TCP where that is configured. Nobody's routes hang on it: a port that is taken is tried again.
func (d *wiring) serveMetrics(ctx context.Context) error {
	addr := d.conf.Load().metrics
	if addr == "" {
		return nil
	}
	mux := http.NewServeMux()
	d.observe(mux)
	for told := ""; ; {
		err := serveTCP(ctx, addr, mux)
		if err == nil {
			return nil
		}
		if err.Error() != told {
			told = err.Error()
			d.log.Warn("cannot serve metrics over TCP, trying again", "problem", err)
		}
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
}

func serveTCP(ctx context.Context, addr string, h http.Handler) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
