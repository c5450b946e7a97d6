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

// Bar is one promise about speed: ours against a peer's figure, both measured in this run, and the ratio that was promised.
type Bar struct {
	Name  string  `json:"name"`
	Ours  Figures `json:"ours"`
	Peer  Figures `json:"peer"`
	Ratio float64 `json:"ratio"` // peer p50 / ours p50
	Want  float64 `json:"bar"`   // the least ratio that was promised; 0: none
}

// Figures are what repeated samples of one thing came to.
type Figures struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	CPU time.Duration `json:"cpu_ns"` // median of user+system time, children included; 0 where it is not taken
	N   int           `json:"samples"`
}

// OK reports that the promise holds.
func (b Bar) OK() bool { return b.Ratio >= b.Want }

// String is the line that make bench prints per bar.
func (b Bar) String() string {
	verdict := "ok"
	if !b.OK() {
		verdict = "short"
	}
	return fmt.Sprintf("%s: %s, %s, %.1fx, %.1fx %s", b.Name, ms(b.Ours.P50), ms(b.Peer.P50), b.Ratio, b.Want, verdict)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }

// Sample is one run of one contender.
type Sample struct{ Wall, CPU time.Duration }

// contend runs ours and the peer's in alternation, rounds times each, so that both meet the same machine; who goes first
// changes from round to round. It stops at the first error.
func contend(rounds int, ours, peer func() (Sample, error)) (o, p []Sample, err error) {
	for i := range rounds {
		order := []func() error{
			func() error { s, err := ours(); o = append(o, s); return err },
			func() error { s, err := peer(); p = append(p, s); return err },
		}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, run := range order {
			if err := run(); err != nil {
				return nil, nil, err
			}
		}
	}
	return o, p, nil
}

func figures(samples []Sample) Figures {
	wall, cpu := make([]time.Duration, 0, len(samples)), make([]time.Duration, 0, len(samples))
	for _, s := range samples {
		wall, cpu = append(wall, s.Wall), append(cpu, s.CPU)
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	return Figures{P50: quantile(wall, 50), P99: quantile(wall, 99), CPU: quantile(cpu, 50), N: len(samples)}
}

// quantile is the q-th percentile of sorted values by nearest rank.
func quantile(sorted []time.Duration, q int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := (len(sorted)*q + 99) / 100
	return sorted[max(i-1, 0)]
}

// report prints a line as each bar comes in and keeps all for the JSON file.
type report struct {
	out  io.Writer
	bars []Bar
}

func (r *report) add(name string, want float64, ours, peer []Sample) {
	b := Bar{Name: name, Ours: figures(ours), Peer: figures(peer), Want: want}
	if b.Ours.P50 > 0 {
		b.Ratio = float64(b.Peer.P50) / float64(b.Ours.P50)
	}
	r.bars = append(r.bars, b)
	fmt.Fprintln(r.out, b)
	fmt.Fprintf(r.out, "    p99 %s, %s; cpu %s, %s; %d samples each\n", ms(b.Ours.P99), ms(b.Peer.P99), ms(b.Ours.CPU), ms(b.Peer.CPU), b.Ours.N)
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
