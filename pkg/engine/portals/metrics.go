// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/traffic"
)

// meter counts syncs.
type meter struct {
	syncs, syncErrors     atomic.Uint64
	syncTime, programTime histogram
}

// maxSeries bounds how many portals have metrics of their own, so that a large cluster does not flood its monitoring.
const maxSeries = 1000

// histogram counts durations in seconds, in the manner of Prometheus.
type histogram struct {
	mu    sync.Mutex
	count [len(bounds) + 1]uint64
	sum   float64
}

var bounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func (h *histogram) observe(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := 0
	for i < len(bounds) && d.Seconds() > bounds[i] {
		i++
	}
	h.count[i]++
	h.sum += d.Seconds()
}

func (h *histogram) write(w io.Writer, name, help string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var total uint64
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name) //nolint:errcheck // into memory
	for i, n := range h.count {
		total += n
		le := "+Inf"
		if i < len(bounds) {
			le = fmt.Sprint(bounds[i])
		}
		fmt.Fprintf(w, "%s_bucket{le=%q} %d\n", name, le, total) //nolint:errcheck // into memory
	}
	fmt.Fprintf(w, "%s_sum %g\n%s_count %d\n", name, h.sum, name, total) //nolint:errcheck // into memory
}

// WriteMetrics writes everything in the text format of Prometheus (exposition formats 0.0.4).
func (k *Keeper) WriteMetrics(out io.Writer) error {
	r := k.Report()
	var b strings.Builder
	gauge := func(name, help string, v float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %g\n", name, help, name, name, v)
	}
	truth := map[bool]float64{true: 1}
	gauge("portald_synced", "1 when the kernel holds what the newest manifests say.", truth[r.Synced])
	gauge("portald_healthy", "1 when /healthz answers 200.", truth[k.Healthy() == nil])
	last := float64(0)
	if !r.LastSync.IsZero() {
		last = float64(r.LastSync.UnixMilli()) / 1000
	}
	gauge("portald_last_sync_timestamp_seconds", "When that was last so.", last)
	gauge("portald_services", "Services read.", float64(r.Services))
	gauge("portald_portals", "Portals in force.", float64(len(r.Portals)))
	gauge("portald_endpoints", "Endpoints of portals in force.", float64(r.Endpoints))
	gauge("portald_problems", "Manifests and services that are not in force.", float64(len(r.Problems)))
	gauge("portald_goroutines", "Goroutines of the process.", float64(runtime.NumGoroutine()))
	fmt.Fprintf(&b, "# HELP portald_syncs_total Syncs by result.\n# TYPE portald_syncs_total counter\n"+
		"portald_syncs_total{result=\"ok\"} %d\nportald_syncs_total{result=\"error\"} %d\n", k.syncs.Load(), k.syncErrors.Load())
	k.syncTime.write(&b, "portald_sync_duration_seconds", "How long a sync takes.")
	k.programTime.write(&b, "portald_network_programming_duration_seconds", "From a change seen to the change in force.")
	writeTraffic(&b, r.Portals)
	_, err := io.WriteString(out, b.String())
	return err
}

// label writes a label's value as Prometheus' text format has it, which knows these three escapes and no others.
var label = strings.NewReplacer("\\", `\\`, "\"", `\"`, "\n", `\n`).Replace

// writeTraffic writes the counters of portals that the proxy serves.
func writeTraffic(b *strings.Builder, portals []Portal) {
	shown := portals[:0:0]
	for _, p := range portals {
		if p.Traffic != nil {
			shown = append(shown, p)
		}
	}
	omitted := max(0, len(shown)-maxSeries)
	shown = shown[:len(shown)-omitted]
	for _, m := range []struct {
		name, kind, help string
		value            func(*traffic.Stats) float64
	}{
		{"portald_proxy_connections_total", "counter", "Connections and UDP sessions.", func(s *traffic.Stats) float64 { return float64(s.Accepted) }},
		{"portald_proxy_connections", "gauge", "Of these, still open.", func(s *traffic.Stats) float64 { return float64(s.Active) }},
		{"portald_proxy_retries_total", "counter", "Attempts beyond the first to connect to an endpoint.", func(s *traffic.Stats) float64 { return float64(s.Retries) }},
		{"portald_proxy_failures_total", "counter", "Connections that no endpoint took.", func(s *traffic.Stats) float64 { return float64(s.Failed) }},
		{"portald_proxy_limited_total", "counter", "Connections over a limit, or from where none may come.", func(s *traffic.Stats) float64 { return float64(s.Limited) }},
		{"portald_proxy_ejections_total", "counter", "Times that an endpoint was put to rest.", func(s *traffic.Stats) float64 { return float64(s.Ejected) }},
		{"portald_proxy_received_bytes_total", "counter", "Bytes from clients.", func(s *traffic.Stats) float64 { return float64(s.BytesIn) }},
		{"portald_proxy_sent_bytes_total", "counter", "Bytes to clients.", func(s *traffic.Stats) float64 { return float64(s.BytesOut) }},
		{"portald_proxy_endpoints_up", "gauge", "Endpoints that are used.", func(s *traffic.Stats) float64 { return float64(s.Usable()) }},
	} {
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
		for _, p := range shown {
			fmt.Fprintf(b, "%s{service=\"%s\",port=\"%s\",portal=\"%s\"} %g\n", m.name, label(p.Service), label(p.PortName), label(p.Key()), m.value(p.Traffic))
		}
	}
	fmt.Fprintf(b, "# HELP portald_proxy_portals_omitted Portals without metrics of their own: more than %d would be too many.\n"+
		"# TYPE portald_proxy_portals_omitted gauge\nportald_proxy_portals_omitted %d\n", maxSeries, omitted)
}
