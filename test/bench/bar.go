// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Bar is one promise: ours against a peer's figure, both measured in this run, and what was promised. The promise is
// a ratio, or a most that ours may come to whatever the peer does, or both.
type Bar struct {
	Name   string   `json:"name"`
	Unit   Unit     `json:"unit"`
	Ours   Figures  `json:"ours"`
	Peer   Figures  `json:"peer"`
	Ratio  float64  `json:"ratio"`            // peer p50 / ours p50, so above 1 ours is better; 0: one of them is nought or missing
	Want   float64  `json:"bar"`              // the least ratio that was promised, below 1 where ours may be worse; 0: none
	Most   *float64 `json:"most,omitempty"`   // the most that ours may come to, in Unit; nil: none
	Reason string   `json:"reason,omitempty"` // why a figure is missing
}

// Unit is what figures count. Less is better in all of them.
type Unit string

// Units.
const (
	Millis  Unit = "ms"
	Micros  Unit = "µs"
	Mega    Unit = "MB"
	Packets Unit = "packets"
	Routes  Unit = "routes"
	Times   Unit = "times"
	Percent Unit = "%"
)

// Figures are what repeated samples of one thing came to.
type Figures struct {
	P50 float64       `json:"p50"`
	P99 float64       `json:"p99"`
	CPU time.Duration `json:"cpu_ns"` // median of user+system time, children included; 0 where it is not taken
	N   int           `json:"samples"`
}

// OK reports that the promise holds. A promise without figures of ours does not; nor does a ratio without the peer's.
func (b Bar) OK() bool {
	if b.Ours.N == 0 || b.Most != nil && b.Ours.P50 > *b.Most {
		return false
	}
	if b.Want > 0 && b.Ours.P50 == 0 { // nothing is less than nought
		return b.Peer.N > 0
	}
	return b.Ratio >= b.Want
}

// String is the line that make bench prints per bar.
func (b Bar) String() string {
	verdict := "ok"
	if !b.OK() {
		verdict = "short"
	}
	line := fmt.Sprintf("%s: %s, %s, %s, %s %s", b.Name, b.show(b.Ours, b.Ours.P50), b.show(b.Peer, b.Peer.P50), times(b.Ratio), b.bar(), verdict)
	if b.Reason != "" {
		line += " (" + b.Reason + ")"
	}
	return line
}

func (b Bar) bar() string {
	switch {
	case b.Most != nil && b.Want > 0:
		return times(b.Want) + " and at most " + b.Unit.show(*b.Most)
	case b.Most != nil:
		return "at most " + b.Unit.show(*b.Most)
	}
	return times(b.Want)
}

func (b Bar) show(of Figures, v float64) string {
	if of.N == 0 {
		return "-"
	}
	return b.Unit.show(v)
}

func (u Unit) show(v float64) string {
	if u == Packets || u == Routes || u == Times {
		return fmt.Sprintf("%.0f %s", v, u)
	}
	return fmt.Sprintf("%.2f %s", v, u)
}

func times(ratio float64) string {
	switch {
	case ratio == 0:
		return "-"
	case ratio < 1:
		return fmt.Sprintf("%.2fx", ratio)
	}
	return fmt.Sprintf("%.1fx", ratio)
}

// Sample is one run of one contender.
type Sample struct{ Wall, CPU time.Duration }

// contend runs ours and the peer's in alternation, rounds times each, so that both meet the same machine; who goes first
// changes from round to round. It stops at the first error.
func contend(rounds int, ours, peer func() (Sample, error)) (o, p []Sample, err error) {
	err = alternate(rounds,
		func() error { s, err := ours(); o = append(o, s); return err },
		func() error { s, err := peer(); p = append(p, s); return err },
	)
	if err != nil {
		return nil, nil, err
	}
	return o, p, nil
}

// alternate runs all contenders in every round, a different one first each time, and stops at the first error.
func alternate(rounds int, runs ...func() error) error {
	for i := range rounds {
		for k := range runs {
			if err := runs[(i+k)%len(runs)](); err != nil {
				return err
			}
		}
	}
	return nil
}

func figures(values []float64) Figures {
	v := slices.Sorted(slices.Values(values))
	return Figures{P50: quantile(v, 50), P99: quantile(v, 99), N: len(v)}
}

// quantile is the q-th percentile of sorted values by nearest rank.
func quantile[T any](sorted []T, q int) T {
	if len(sorted) == 0 {
		var none T
		return none
	}
	i := (len(sorted)*q + 99) / 100
	return sorted[max(i-1, 0)]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// report prints a line as each bar comes in and keeps all for the JSON file.
type report struct {
	out  io.Writer
	bars []Bar
}

// add reports times of processes, with their CPU time.
func (r *report) add(name string, want float64, ours, peer []Sample) {
	b := Bar{Name: name, Unit: Millis, Want: want}
	o, p := split(ours), split(peer)
	b.fill(o.wall, p.wall)
	b.Ours.CPU, b.Peer.CPU = o.cpu, p.cpu
	r.print(b, fmt.Sprintf("; cpu %s, %s", Millis.show(millis(b.Ours.CPU)), Millis.show(millis(b.Peer.CPU))))
}

type halves struct {
	wall []float64
	cpu  time.Duration
}

func split(samples []Sample) (h halves) {
	var cpu []time.Duration
	for _, s := range samples {
		h.wall, cpu = append(h.wall, millis(s.Wall)), append(cpu, s.CPU)
	}
	slices.Sort(cpu)
	h.cpu = quantile(cpu, 50)
	return h
}

// put reports values of any unit. b says what was promised; its figures are filled in.
func (r *report) put(b Bar, ours, peer []float64) {
	b.fill(ours, peer)
	r.print(b, "")
}

func (b *Bar) fill(ours, peer []float64) {
	b.Ours, b.Peer = figures(ours), figures(peer)
	if b.Ours.P50 > 0 {
		b.Ratio = b.Peer.P50 / b.Ours.P50
	}
}

func (r *report) print(b Bar, more string) {
	r.bars = append(r.bars, b)
	fmt.Fprintln(r.out, b)
	fmt.Fprintf(r.out, "    p99 %s, %s%s; %d and %d samples\n", b.show(b.Ours, b.Ours.P99), b.show(b.Peer, b.Peer.P99), more, b.Ours.N, b.Peer.N)
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r.bars, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
