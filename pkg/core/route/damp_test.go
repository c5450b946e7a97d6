// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/netip"
	"testing"
	"time"
)

// flapper is a peer that changes one prefix, and the kernel that follows it.
type flapper struct {
	d       Damper
	now     time.Time
	up      bool // in the peer's mind
	kernel  bool
	changes int // in the kernel
	began   int
	ended   int
	next    time.Time
}

var flapping = pfx("10.10.20.0/24")

func (f *flapper) flap() {
	f.up = !f.up
	l := Learned{Prefix: flapping}
	if f.up {
		l.Via = []Via{{NextHop: addr("10.20.30.1"), Peer: addr("10.20.30.1")}}
	}
	f.ask([]Learned{l})
}

func (f *flapper) ask(changed []Learned) {
	through, began, ended, next := f.d.Pass(changed, func(netip.Prefix) bool { return f.kernel }, f.now)
	for _, l := range through {
		f.kernel = len(l.Via) > 0
		f.changes++
	}
	f.began, f.ended, f.next = f.began+len(began), f.ended+len(ended), next
}

func TestDamper(t *testing.T) {
	f := &flapper{now: time.Unix(0, 0)}
	for range 1001 { // 100 times a second for 10 s; up at the end
		f.flap()
		f.now = f.now.Add(10 * time.Millisecond)
	}
	if f.changes < 15 || f.changes > 25 {
		t.Errorf("1001 flaps in 10 s became %d changes in the kernel, want some 10 and then one a second", f.changes)
	}
	if f.began != 1 || f.d.Damped() != 1 {
		t.Errorf("told %d times that it flaps, want once", f.began)
	}
	for i := 0; !f.next.IsZero(); i++ { // nobody says a word any more
		if i > 10 || f.next.Before(f.now) {
			t.Fatalf("asked to come at %s, now %s", f.next, f.now)
		}
		f.now = f.next
		f.ask(nil)
		if f.now.Sub(time.Unix(10, 0)) > flapPace && f.kernel != f.up {
			t.Fatal("the truth came later than a second after the last flap")
		}
	}
	if !f.kernel || f.ended != 1 || f.d.Damped() != 0 {
		t.Errorf("after calm: in the kernel %v, told %d times that it is calm, %d damped", f.kernel, f.ended, f.d.Damped())
	}
}

func TestDamperLetsPass(t *testing.T) {
	t.Run("a table that is told for the first time, and twice", func(t *testing.T) {
		var d Damper
		table := map[netip.Prefix]bool{}
		for range 2 {
			var all []Learned
			for i := range 1000 {
				all = append(all, Learned{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)})
			}
			through, _, _, next := d.Pass(all, func(p netip.Prefix) bool { return table[p] }, time.Unix(0, 0))
			if len(through) != 1000 || !next.IsZero() {
				t.Errorf("%d of 1000 passed", len(through))
			}
			if len(d.recent) != 0 && len(table) == 0 {
				t.Error("it remembers what it saw for the first time")
			}
			for _, l := range through {
				table[l.Prefix] = true
			}
		}
	})
	t.Run("a change every two seconds", func(t *testing.T) {
		f := &flapper{now: time.Unix(0, 0)}
		for range 100 {
			f.flap()
			f.now = f.now.Add(2 * time.Second)
		}
		if f.changes != 100 || f.began != 0 {
			t.Errorf("%d of 100 passed", f.changes)
		}
	})
	told := func(nodes, ready int) Learned {
		l := Learned{Prefix: pfx("10.100.87.105/32")}
		for i := range nodes {
			a := netip.AddrFrom4([4]byte{10, 20, 30, byte(1 + i)})
			l.Via = append(l.Via, Via{NextHop: a, Peer: a, Bandwidth: uint64(ready)})
		}
		return l
	}
	pass := func(t *testing.T, changes ...Learned) (n int) {
		t.Helper()
		var d Damper
		for _, l := range changes {
			through, _, _, _ := d.Pass([]Learned{l}, func(netip.Prefix) bool { return n > 0 }, time.Unix(0, 0))
			n += len(through)
		}
		return n
	}
	t.Run("a service address that 40 nodes begin to tell", func(t *testing.T) {
		var all []Learned
		for i := range 40 {
			all = append(all, told(i+1, 1))
		}
		if n := pass(t, all...); n != 40 {
			t.Errorf("%d of 40 passed", n)
		}
	})
	t.Run("and that they cease to tell one after the other", func(t *testing.T) {
		var all []Learned
		for i := range 40 {
			all = append(all, told(40-i, 1))
		}
		if n := pass(t, all...); n != 40 {
			t.Errorf("%d of 40 passed", n)
		}
	})
	t.Run("a node whose endpoints become ready one by one", func(t *testing.T) {
		var all []Learned
		for i := range 40 {
			all = append(all, told(2, i+1))
		}
		if n := pass(t, all...); n != 40 {
			t.Errorf("%d of 40 passed", n)
		}
	})
	t.Run("not a bandwidth that goes up and down", func(t *testing.T) {
		var all []Learned
		for i := range 40 {
			all = append(all, told(2, 1+i%2))
		}
		if n := pass(t, all...); n > flapsFree+4 {
			t.Errorf("%d passed", n)
		}
	})
	t.Run("not a peer that invents another next hop each time", func(t *testing.T) {
		var all []Learned
		for i := range 200 {
			l := told(1, 1)
			l.Via[0].NextHop = netip.AddrFrom4([4]byte{10, 20, 31, byte(i)})
			all = append(all, l)
		}
		if n := pass(t, all...); n > goneFree+flapsFree+4 {
			t.Errorf("%d passed", n)
		}
	})
}
