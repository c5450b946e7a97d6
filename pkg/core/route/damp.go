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
	flapsFree  = 10              // changes of one prefix within flapWindow that pass at once
	flapPace   = time.Second     // a damped prefix changes no more often
	flapCalm   = 5 * time.Second // without a change for so long it is free again
)

// Damper slows down prefixes that flap. It is simpler than RFC 2439, which takes a flapping prefix out of use for minutes:
// here a damped prefix follows the truth, once a second. The zero Damper is ready for use; it knows only prefixes that
// changed again within the last seconds.
type Damper struct {
	window time.Time // when count began
	count  map[netip.Prefix]int
	damped map[netip.Prefix]*damped
}

type damped struct {
	latest  Learned
	pending bool      // latest has not passed yet
	passed  time.Time // when the last one did
	changed time.Time
}

// Pass takes what changed and returns what may be carried out now, and the prefixes that are damped from now on and
// those that are free again. Only changes of prefixes that known names are counted: a table that is told for the first
// time passes. next is when to ask again though nothing changed; zero: not before the next change.
func (d *Damper) Pass(changed []Learned, known func(netip.Prefix) bool, now time.Time) (through []Learned, began, ended []netip.Prefix, next time.Time) {
	if now.Sub(d.window) > flapWindow {
		d.window, d.count = now, nil
	}
	through = slices.DeleteFunc(changed, func(l Learned) bool {
		x := d.damped[l.Prefix]
		if x == nil && !d.tooMuch(l.Prefix, known) {
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
func (d *Damper) tooMuch(p netip.Prefix, known func(netip.Prefix) bool) bool {
	n, flapped := d.count[p]
	if !flapped && !known(p) {
		return false
	}
	if d.count == nil {
		d.count = map[netip.Prefix]int{}
	}
	d.count[p] = n + 1
	return n+1 > flapsFree
}

// Damped is how many prefixes are slowed down now.
func (d *Damper) Damped() int { return len(d.damped) }
