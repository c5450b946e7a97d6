// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func endpoints(n int) (out []netip.AddrPort) {
	for i := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)}), 8080))
	}
	return out
}

func ones(n int) []int { return slices.Repeat([]int{1}, n) }

func slots(m Maglev, n int) []int {
	count := make([]int, n)
	for _, i := range m {
		count[i]++
	}
	return count
}

func whoever(int) bool { return true }

func TestMaglevIsFair(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []int
		want    []float64 // shares
	}{
		{"equals have equal shares", []int{1, 1, 1, 1}, []float64{0.25, 0.25, 0.25, 0.25}},
		{"weights are proportions", []int{3, 1, 2, 0}, []float64{0.5, 1. / 6, 1. / 3, 0}},
		{"one has all", []int{7}, []float64{1}},
	} {
		got := slots(NewMaglev(endpoints(len(tt.weights)), tt.weights), len(tt.weights))
		for i, n := range got {
			if d := float64(n)/Size - tt.want[i]; d < -0.001 || d > 0.001 {
				t.Errorf("%s: endpoint %d has %d of %d slots, want %.3f", tt.name, i, n, Size, tt.want[i])
			}
		}
	}
	if m := NewMaglev(endpoints(2), []int{0, 0}); m != nil || m.For(netip.IPv4Unspecified(), whoever) != -1 {
		t.Error("endpoints without weight make a table")
	}
}

func TestMaglevMovesLittle(t *testing.T) {
	const n = 10
	before, after := NewMaglev(endpoints(n), ones(n)), NewMaglev(endpoints(n-1), ones(n-1))
	moved := 0
	for i := range before {
		if int(before[i]) != n-1 && before[i] != after[i] {
			moved++
		}
	}
	if moved > Size/10 {
		t.Errorf("%d of %d slots moved though their endpoint stayed", moved, Size)
	}
	t.Logf("%.1f%% of slots moved though their endpoint stayed", 100*float64(moved)/Size)
}

// The same table on every node of a cluster, in every version: an upgrade must not send clients elsewhere.
func TestMaglevNeverChanges(t *testing.T) {
	m := NewMaglev(endpoints(5), ones(5))
	var got []int
	for i := range 8 {
		got = append(got, m.For(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), whoever))
	}
	if want := []int{1, 2, 0, 4, 0, 1, 4, 4}; !slices.Equal(got, want) {
		t.Errorf("eight clients go to %v, went to %v", got, want)
	}
}

func TestMaglevPassesOverTheSick(t *testing.T) {
	m := NewMaglev(endpoints(4), ones(4))
	took := make([]int, 4)
	for i := range 4000 {
		c := netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)})
		home := m.For(c, whoever)
		got := m.For(c, func(i int) bool { return i != 2 })
		if home != 2 && got != home {
			t.Fatalf("client of %d went to %d", home, got)
		}
		if home == 2 {
			took[got]++
		}
	}
	if took[2] > 0 || slices.Min([]int{took[0], took[1], took[3]}) < 200 {
		t.Errorf("the clients of the sick one went to %v", took)
	}
	if got := m.For(netip.IPv6Loopback(), func(int) bool { return false }); got != -1 {
		t.Errorf("chose %d of none", got)
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		name        string
		weight      int
		age, window time.Duration
		want        float64
	}{
		{"no window, no waiting", 3, 0, 0, 3},
		{"a tenth at first", 3, 0, time.Minute, 0.3},
		{"half way, half", 2, 30 * time.Second, time.Minute, 1},
		{"then all", 2, time.Minute, time.Minute, 2},
		{"nothing stays nothing", 0, time.Second, time.Minute, 0},
	} {
		if got := share(tt.weight, tt.age, tt.window); got < tt.want-1e-9 || got > tt.want+1e-9 {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func BenchmarkNewMaglev(b *testing.B) {
	e, w := endpoints(1000), ones(1000)
	for b.Loop() {
		NewMaglev(e, w)
	}
}
