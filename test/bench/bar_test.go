// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"testing"
)

func TestBarLine(t *testing.T) {
	two, none := 2.0, 0.0
	fig := func(p50 float64) Figures { return Figures{P50: p50, N: 1} }
	tests := []struct {
		name string
		bar  Bar
		want string
	}{
		{"a ratio that is reached", Bar{Unit: Millis, Ours: fig(2), Peer: fig(7), Want: 3}, "x: 2.00 ms, 7.00 ms, 3.5x, 3.0x ok"},
		{"a ratio that is not", Bar{Unit: Millis, Ours: fig(2), Peer: fig(5), Want: 3}, "x: 2.00 ms, 5.00 ms, 2.5x, 3.0x short"},
		{"ours may be slower, to a degree", Bar{Unit: Millis, Ours: fig(2), Peer: fig(1), Want: 1 / 2.3}, "x: 2.00 ms, 1.00 ms, 0.50x, 0.43x ok"},
		{"ours is slower than it may be", Bar{Unit: Millis, Ours: fig(3), Peer: fig(1), Want: 1 / 2.3}, "x: 3.00 ms, 1.00 ms, 0.33x, 0.43x short"},
		{"a most, though the peer is better", Bar{Unit: Millis, Ours: fig(1.5), Peer: fig(0.3), Most: &two}, "x: 1.50 ms, 0.30 ms, 0.20x, at most 2.00 ms ok"},
		{"more than the most, though the peer is worse", Bar{Unit: Millis, Ours: fig(2.5), Peer: fig(5), Most: &two}, "x: 2.50 ms, 5.00 ms, 2.0x, at most 2.00 ms short"},
		{"both, and the ratio fails", Bar{Unit: Mega, Ours: fig(2), Peer: fig(1), Want: 1, Most: &two}, "x: 2.00 MB, 1.00 MB, 0.50x, 1.0x and at most 2.00 MB short"},
		{"nothing lost of nothing allowed", Bar{Unit: Packets, Ours: fig(0), Peer: fig(1028), Most: &none}, "x: 0 packets, 1028 packets, -, at most 0 packets ok"},
		{"one lost of nothing allowed", Bar{Unit: Packets, Ours: fig(1), Peer: fig(1028), Most: &none}, "x: 1 packets, 1028 packets, 1028.0x, at most 0 packets short"},
		{"nought against a ratio", Bar{Unit: Percent, Ours: fig(0), Peer: fig(0), Want: 1}, "x: 0.00 %, 0.00 %, -, 1.0x ok"},
		{"no figure of ours", Bar{Unit: Millis, Peer: fig(2), Most: &two, Reason: "no BFD"}, "x: -, 2.00 ms, -, at most 2.00 ms short (no BFD)"},
		{"no figure of the peer against a ratio", Bar{Unit: Millis, Ours: fig(2), Want: 1, Reason: "no FRR"}, "x: 2.00 ms, -, -, 1.0x short (no FRR)"},
		{"no figure of the peer, and none needed", Bar{Unit: Millis, Ours: fig(2), Most: &two, Reason: "no FRR"}, "x: 2.00 ms, -, -, at most 2.00 ms ok (no FRR)"},
		{"no promise", Bar{Unit: Millis, Ours: fig(2), Peer: fig(1)}, "x: 2.00 ms, 1.00 ms, 0.50x, - ok"},
	}
	for _, tt := range tests {
		b := tt.bar
		b.Name = "x"
		if b.Ours.P50 > 0 {
			b.Ratio = b.Peer.P50 / b.Ours.P50
		}
		if got := b.String(); got != tt.want {
			t.Errorf("%s\ngot  %q\nwant %q", tt.name, got, tt.want)
		}
	}
}

func TestPut(t *testing.T) {
	r := &report{out: io.Discard}
	r.put(Bar{Name: "x", Unit: Millis, Want: 2}, []float64{3, 1, 2}, []float64{9, 8, 1})
	want := Bar{Name: "x", Unit: Millis, Want: 2, Ratio: 4, Ours: Figures{P50: 2, P99: 3, N: 3}, Peer: Figures{P50: 8, P99: 9, N: 3}}
	if len(r.bars) != 1 || r.bars[0] != want {
		t.Errorf("got %+v\nwant %+v", r.bars, want)
	}
}

func TestQuantile(t *testing.T) {
	var vs []float64
	for i := range 100 {
		vs = append(vs, float64(i+1))
	}
	for q, want := range map[int]float64{50: 50, 99: 99, 100: 100, 0: 1} {
		if got := quantile(vs, q); got != want {
			t.Errorf("quantile %d = %v, want %v", q, got, want)
		}
	}
	if got := quantile([]float64(nil), 50); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
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

func TestAlternateLetsEveryoneGoFirst(t *testing.T) {
	var order string
	mark := func(s string) func() error { return func() error { order += s; return nil } }
	if err := alternate(3, mark("a"), mark("b"), mark("c")); err != nil || order != "abcbcacab" {
		t.Errorf("order %q, %v", order, err)
	}
}
