// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// ends makes n endpoints, 10.0.0.1 and up, with the given numbers of connections.
func ends(active ...int64) []*Endpoint {
	var out []*Endpoint
	for i, n := range active {
		b := &Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 8080)}
		b.Active.Store(n)
		b.Weight.Store(1)
		out = append(out, b)
	}
	return out
}

// target is a group and who picks from it.
type target struct {
	in     Group
	picker Picker
}

func (t *target) choose(client netip.Addr, tried []*Endpoint) *Endpoint {
	return t.in.Choose(t.picker, client, tried, time.Now())
}

func client(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)}) }

// share counts n picks for n clients, by endpoint.
func shares(p Picker, from []*Endpoint, n int) []int {
	count := make([]int, len(from))
	for i := range n {
		b := p.Pick(client(i), from, time.Now())
		for j := range from {
			if from[j] == b {
				count[j]++
			}
		}
	}
	return count
}

func TestLeastConnections(t *testing.T) {
	p := NewPicker(tuning.Settings{Balance: tuning.LeastConnections}, 0)
	if got := shares(p, ends(5, 2, 9), 10); got[1] != 10 {
		t.Errorf("picks by endpoint %v, want all at the least busy one", got)
	}
	if d := cmp.Diff([]int{10, 10, 10}, shares(p, ends(1, 1, 1), 30)); d != "" {
		t.Errorf("equals take turns (-want +got):\n%s", d)
	}
}

func TestRandomTwo(t *testing.T) {
	p := NewPicker(tuning.Settings{Balance: tuning.RandomTwo}, 0)
	got := shares(p, ends(0, 0, 100), 3000)
	if got[2] != 0 || got[0] < 1000 || got[1] < 1000 {
		t.Errorf("picks %v: with three endpoints the busiest always meets a less busy one", got)
	}
	if got := shares(p, ends(7), 10); got[0] != 10 {
		t.Errorf("one endpoint: %v", got)
	}
}

func TestMaglevSendsAClientToOneEndpoint(t *testing.T) {
	tgt := func(from []*Endpoint) *target {
		return &target{in: NewGroup(from, tuning.Maglev), picker: NewPicker(tuning.Settings{Balance: tuning.Maglev}, time.Minute)}
	}
	from := ends(0, 0, 0, 0)
	here, there := tgt(from), tgt(ends(9, 9, 9, 9)) // another node
	count := map[netip.AddrPort]int{}
	for i := range 4000 {
		b := here.choose(client(i), nil)
		count[b.Addr]++
		if o := there.choose(client(i), nil); o.Addr != b.Addr {
			t.Fatalf("%s goes to %s here and to %s there", client(i), b.Addr, o.Addr)
		}
		if next := here.choose(client(i), []*Endpoint{b}); next == b {
			t.Fatalf("%s is sent to %s, which it has tried", client(i), b.Addr)
		}
	}
	for _, b := range from {
		if n := count[b.Addr]; n < 800 || n > 1200 {
			t.Errorf("%s has %d of 4000 clients", b.Addr, n)
		}
	}
}

func TestWeights(t *testing.T) {
	for _, kind := range []tuning.Balance{tuning.RoundRobin, tuning.LeastConnections, tuning.RandomTwo, tuning.Maglev} {
		from := ends(0, 0, 0)
		for i, w := range []int64{3, 1, 0} {
			from[i].Weight.Store(w)
		}
		tune := tuning.Settings{Balance: kind, Weights: "10.0.0.0/32=3,10.0.0.2/32=0"}
		tgt := &target{in: NewGroup(from, kind), picker: NewPicker(tune, 0)}
		count := make([]int, len(from))
		for i := range 4000 {
			b := tgt.choose(client(i), nil)
			count[slices.Index(from, b)]++
			b.Active.Add(1) // and it stays
		}
		if count[2] != 0 || count[0] < 2800 || count[0] > 3200 {
			t.Errorf("%s: weights 3, 1, 0 had %v of 4000 connections", kind, count)
		}
		for _, b := range from[:2] {
			b.Down.Store(true)
		}
		from[2].Weight.Store(0)
		if b := tgt.choose(client(0), from[:2]); b != from[2] {
			t.Errorf("%s: when the others have been tried, one without weight is not taken", kind)
		}
	}
}

func TestStickyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPicker(tuning.Settings{}, time.Minute)
		from := ends(0, 0, 0)
		first := p.Pick(client(1), from, time.Now())
		for range 5 {
			time.Sleep(50 * time.Second) // each visit begins the minute anew
			p.Pick(client(2), from, time.Now())
			if p.Pick(client(1), from, time.Now()) != first {
				t.Error("a client that keeps coming was sent elsewhere")
			}
		}
		left := only(from, func(b *Endpoint) bool { return b != first })
		if p.Pick(client(1), left, time.Now()) == first {
			t.Error("picked what may not be tried")
		}
		time.Sleep(2 * time.Minute)
		p.Pick(client(9), from, time.Now())
		if n := len(p.(*sticky).seen); n != 1 {
			t.Errorf("%d clients remembered, want only the one that came within the timeout", n)
		}
	})
}

// Whoever comes from ever new addresses must not take ever more memory, nor a place from those who come next.
func TestStickyClientsAreBounded(t *testing.T) {
	p := NewPicker(tuning.Settings{}, time.Hour)
	from := ends(0, 0)
	for i := range mostClients + 1000 {
		a := netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), byte(i)})
		first := p.Pick(a, from, time.Now())
		if p.Pick(a, from, time.Now()) != first {
			t.Fatalf("client %d was sent elsewhere", i)
		}
	}
	if n := len(p.(*sticky).seen); n != mostClients {
		t.Errorf("%d clients remembered, want %d", n, mostClients)
	}
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, balance := range []tuning.Balance{tuning.RoundRobin, tuning.LeastConnections} {
			p := NewPicker(tuning.Settings{Balance: balance, SlowStart: 10 * time.Second}, 0)
			from := ends(0, 0)
			from[1].Since = time.Now()
			if balance == tuning.LeastConnections {
				from[0].Active.Store(1) // the new one is the less busy
			}
			var got []int
			for range 3 {
				got = append(got, shares(p, from, 4000)[1])
				time.Sleep(5 * time.Second)
			}
			full := got[2]
			if got[0] > full/5 || got[1] < full*2/5 || got[1] > full*3/4 || full < 1900 {
				t.Errorf("%s: the new endpoint's picks at once, halfway and after: %v of 4000", balance, got)
			}
			if n := shares(p, from[1:], 10)[0]; n != 10 {
				t.Errorf("%s: the only endpoint, though new, was picked %d times of 10", balance, n)
			}
		}
	})
}

func TestEndpointsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tune := tuning.Settings{EjectAfter: 2, EjectFor: time.Second}
		from := ends(0, 0)
		tgt := &target{in: Group{All: from}, picker: NewPicker(tune, 0)}
		if from[0].Refused(tune, time.Now()) || !from[0].Usable(time.Now()) {
			t.Error("one failure of two is enough to rest")
		}
		var rests []time.Duration
		for range 6 {
			if !from[0].Refused(tune, time.Now()) {
				t.Error("two failures in a row are not enough to rest")
			}
			for range 10 {
				if tgt.choose(client(0), nil) != from[1] {
					t.Error("chose the endpoint that rests")
				}
			}
			began := time.Now()
			for !from[0].Usable(time.Now()) {
				time.Sleep(100 * time.Millisecond)
			}
			rests = append(rests, time.Since(began))
		}
		want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second, 8 * time.Second}
		if d := cmp.Diff(want, rests); d != "" {
			t.Errorf("rests (-want +got):\n%s", d)
		}
		from[0].Worked()
		if from[0].Refused(tune, time.Now()) {
			t.Error("after a success the count begins anew")
		}
	})
}

func TestSickEndpointsAreBetterThanNone(t *testing.T) {
	from := ends(0, 0, 0)
	tgt := &target{in: Group{All: from}, picker: NewPicker(tuning.Settings{}, 0)}
	for _, b := range from {
		b.Down.Store(true)
	}
	if got := shares(chooser{tgt}, from, 9); got[0] != 3 || got[1] != 3 || got[2] != 3 {
		t.Errorf("with all endpoints down picks went %v", got)
	}
	from[1].Down.Store(false)
	if got := shares(chooser{tgt}, from, 9); got[1] != 9 {
		t.Errorf("with one endpoint up picks went %v", got)
	}
	if b := tgt.choose(client(0), from[1:2]); b == from[1] || b == nil {
		t.Error("a healthy endpoint that was tried was preferred to a sick one that was not")
	}
	if b := tgt.choose(client(0), from); b == nil {
		t.Error("when all were tried the round does not begin again")
	}
	if b := (&target{}).choose(client(0), nil); b != nil {
		t.Error("chose an endpoint where there is none")
	}
}

type chooser struct{ t *target }

func (c chooser) Pick(client netip.Addr, _ []*Endpoint, _ time.Time) *Endpoint {
	return c.t.choose(client, nil)
}

func BenchmarkPick(b *testing.B) {
	for _, balance := range []tuning.Balance{tuning.RoundRobin, tuning.LeastConnections, tuning.RandomTwo, tuning.Maglev} {
		for _, n := range []int{4, 1000} {
			tgt := &target{in: NewGroup(ends(make([]int64, n)...), balance), picker: NewPicker(tuning.Settings{Balance: balance}, 0)}
			b.Run(string(balance)+"/"+strconv.Itoa(n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					tgt.choose(client(1), nil)
				}
			})
		}
	}
}
