// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/netip"
	"slices"
	"time"
)

// Limits of a Damper. A link that bounces a few times passes; a peer that flaps a hundred times a second costs the
// kernel one change per prefix and second.
const (
	flapWindow = 10 * time.Second
	flapsFree  = 10              // changes of one prefix within flapWindow that undo earlier ones and pass at once
	goneFree   = 64              // ways that one prefix may lose within flapWindow before more of them count as flaps
	flapPace   = time.Second     // a damped prefix changes no more often
	flapCalm   = 5 * time.Second // without a change for so long it is free again
)

// Damper slows down prefixes that flap. It is simpler than RFC 2439, which takes a flapping prefix out of use for minutes:
// here a damped prefix follows the truth, once a second. The zero Damper is ready for use; it knows only prefixes that
// changed again within the last seconds.
type Damper struct {
	window time.Time // when recent began
	recent map[netip.Prefix]recent
	damped map[netip.Prefix]*damped
}

// recent is what became of a prefix since the window began.
type recent struct {
	via   []Via
	moves *moves // nil before its second change: many prefixes have only one
}

// moves are the ways that came or widened, and went or narrowed.
type moves struct {
	came, went []way
	undone     int // changes that took one back
}

type way struct{ nextHop, peer netip.Addr }

type damped struct {
	latest  Learned
	pending bool      // latest has not passed yet
	passed  time.Time // when the last one did
	changed time.Time
}

// Pass takes what changed and returns what may be carried out now, and the prefixes that are damped from now on and
// those that are free again. Counted are changes of prefixes that known names, and of these the ones that undo an
// earlier one: a table that is told for the first time passes, and so does a service address that many nodes begin to
// tell at once. next is when to ask again though nothing changed; zero: not before the next change.
func (d *Damper) Pass(changed []Learned, known func(netip.Prefix) bool, now time.Time) (through []Learned, began, ended []netip.Prefix, next time.Time) {
	if now.Sub(d.window) > flapWindow {
		d.window, d.recent = now, nil
	}
	through = slices.DeleteFunc(changed, func(l Learned) bool {
		x := d.damped[l.Prefix]
		if x == nil && !d.tooMuch(l, known) {
			return false
		}
		if x == nil {
			if d.damped == nil {
				d.damped = map[netip.Prefix]*damped{}
			}
			x = &damped{passed: now}
			d.damped[l.Prefix] = x
			began = append(began, l.Prefix)
		}
		x.latest, x.pending, x.changed = l, true, now
		return true
	})
	for p, x := range d.damped {
		if x.pending && now.Sub(x.passed) >= flapPace {
			through = append(through, x.latest)
			x.pending, x.passed = false, now
		}
		if !x.pending && now.Sub(x.changed) >= flapCalm {
			delete(d.damped, p)
			ended = append(ended, p)
			continue
		}
		at := x.changed.Add(flapCalm)
		if x.pending {
			at = x.passed.Add(flapPace)
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return through, began, ended, next
}

// tooMuch counts a change.
func (d *Damper) tooMuch(l Learned, known func(netip.Prefix) bool) bool {
	x, again := d.recent[l.Prefix]
	if !again && !known(l.Prefix) {
		return false
	}
	if d.recent == nil {
		d.recent = map[netip.Prefix]recent{}
	}
	if again {
		if x.moves == nil {
			x.moves = &moves{}
		}
		x.moves.note(x.via, l.Via)
	}
	x.via = l.Via
	d.recent[l.Prefix] = x
	return again && x.moves.undone > flapsFree
}

// note takes in a change from one set of ways to another.
func (m *moves) note(from, to []Via) {
	undoes := false
	for _, v := range to {
		if !wider(v, from) {
			continue
		}
		w := way{v.NextHop, v.Peer}
		undoes = undoes || slices.Contains(m.went, w)
		if !slices.Contains(m.came, w) {
			m.came = append(m.came, w)
		}
	}
	for _, v := range from {
		if !wider(v, to) {
			continue
		}
		w := way{v.NextHop, v.Peer}
		undoes = undoes || slices.Contains(m.came, w) || len(m.went) >= goneFree
		if !slices.Contains(m.went, w) && len(m.went) < goneFree {
			m.went = append(m.went, w)
		}
	}
	if undoes {
		m.undone++
	}
}

// wider reports that a way is not among the others, or narrower there.
func wider(v Via, others []Via) bool {
	return !slices.ContainsFunc(others, func(o Via) bool {
		return o.NextHop == v.NextHop && o.Peer == v.Peer && o.Bandwidth >= v.Bandwidth
	})
}

// Damped is how many prefixes are slowed down now.
func (d *Damper) Damped() int { return len(d.damped) }
