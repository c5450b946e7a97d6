// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"
	"time"
)

func TestBarLine(t *testing.T) {
	b := Bar{Name: "cni/add/1", Ours: Figures{P50: 2 * time.Millisecond}, Peer: Figures{P50: 7 * time.Millisecond}, Ratio: 3.5, Want: 3}
	if got, want := b.String(), "cni/add/1: 2.00 ms, 7.00 ms, 3.5x, 3.0x ok"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	b.Ratio = 2.9
	if got, want := b.String(), "cni/add/1: 2.00 ms, 7.00 ms, 2.9x, 3.0x short"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestQuantile(t *testing.T) {
	var ds []time.Duration
	for i := range 100 {
		ds = append(ds, time.Duration(i+1))
	}
	for q, want := range map[int]time.Duration{50: 50, 99: 99, 100: 100, 0: 1} {
		if got := quantile(ds, q); got != want {
			t.Errorf("quantile %d = %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 50); got != 0 {
		t.Errorf("quantile of nothing = %d", got)
	}
}

func TestContendAlternates(t *testing.T) {
	var order string
	mark := func(s string) func() (Sample, error) {
		return func() (Sample, error) { order += s; return Sample{Wall: 1}, nil }
	}
	o, p, err := contend(4, mark("o"), mark("p"))
	if err != nil || len(o) != 4 || len(p) != 4 || order != "oppooppo" {
		t.Errorf("order %q, %d and %d samples, %v", order, len(o), len(p), err)
	}
	boom := errors.New("boom")
	if _, _, err := contend(2, mark("o"), func() (Sample, error) { return Sample{}, boom }); !errors.Is(err, boom) {
		t.Errorf("got %v, want boom", err)
	}
}
