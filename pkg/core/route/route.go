// SPDX-License-Identifier: Apache-2.0

// Package route decides what a routed node puts in its kernel and what it announces: intents, learned paths and a
// policy go in, a forwarding table, announcements and refusals with their reasons come out. It knows neither BGP nor a kernel.
package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Path is one way to a prefix, as a peer offered it after best-path selection. Several Paths of one prefix are of
// equal worth (multipath).
type Path struct {
	Prefix  netip.Prefix
	NextHop netip.Addr
	Peer    netip.Addr // who told us
}

// NextHop is where the kernel sends packets: a gateway on a directly connected link.
type NextHop struct {
	Gateway netip.Addr
	Link    int // interface index
}

// Entry is the forwarding decision for one prefix: one next hop, several of equal worth, or, with none, unreachable.
type Entry struct{ Hops []NextHop }

// Unreachable reports that packets are refused (RTN_UNREACHABLE).
func (e Entry) Unreachable() bool { return len(e.Hops) == 0 }

// Equal compares two entries; hops are sorted by construction.
func (e Entry) Equal(o Entry) bool { return slices.Equal(e.Hops, o.Hops) }

// String is "via 10.20.30.1", "via 10.20.30.1 10.20.30.2" or "unreachable".
func (e Entry) String() string {
	if e.Unreachable() {
		return "unreachable"
	}
	var b strings.Builder
	b.WriteString("via")
	for _, h := range e.Hops {
		b.WriteString(" " + h.Gateway.String())
	}
	return b.String()
}

// FIB is a forwarding table by prefix.
type FIB map[netip.Prefix]Entry

// Intent is a prefix that this node would announce, and whether its local proof holds.
type Intent struct {
	Prefix netip.Prefix
	Why    string // what it is: "pod subnet"
	Lacks  string // what is missing before it may be announced; empty: the proof holds
	Sink   bool   // addresses of it that nothing on the node holds are unreachable, so that no packet goes back to the fabric
}

// Announcement is a prefix to announce and why.
type Announcement struct {
	Prefix netip.Prefix `json:"prefix"`
	Why    string       `json:"why"`
}

// Held is a prefix that is not announced, and what it lacks.
type Held struct {
	Prefix netip.Prefix `json:"prefix"`
	Why    string       `json:"why"`
	Lacks  string       `json:"lacks"`
}

// Refused is a learned path that is not used, and the reason.
type Refused struct {
	Prefix netip.Prefix `json:"prefix"`
	Peer   netip.Addr   `json:"peer"`
	Reason string       `json:"reason"`
}

// Input is everything a decision rests on.
type Input struct {
	Policy   Policy
	Intents  []Intent
	Paths    []Path
	Topology Topology
}

// Decision is what the node should do.
type Decision struct {
	FIB      FIB
	Announce []Announcement
	Held     []Held
	Refused  []Refused
}

// Compute decides anew from everything. The result does not depend on the order of the input.
func Compute(in Input) Decision {
	d := Decision{FIB: FIB{}}
	byPrefix := map[netip.Prefix][]Path{}
	for _, p := range in.Paths {
		byPrefix[p.Prefix] = append(byPrefix[p.Prefix], p)
	}
	for prefix, paths := range byPrefix {
		entry, refused := Choose(in.Policy, in.Topology, paths)
		if !entry.Unreachable() {
			d.FIB[prefix] = entry
		}
		d.Refused = append(d.Refused, refused...)
	}
	for _, i := range in.Intents {
		if i.Sink {
			d.FIB[i.Prefix] = Entry{}
		}
		if i.Lacks == "" {
			d.Announce = append(d.Announce, Announcement{Prefix: i.Prefix, Why: i.Why})
		} else {
			d.Held = append(d.Held, Held{Prefix: i.Prefix, Why: i.Why, Lacks: i.Lacks})
		}
	}
	slices.SortFunc(d.Announce, func(a, b Announcement) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(d.Held, func(a, b Held) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(d.Refused, func(a, b Refused) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), a.Peer.Compare(b.Peer))
	})
	return d
}

// Choose decides one prefix from all its paths. An entry without hops means that none was usable: leave the prefix out.
func Choose(pol Policy, topo Topology, paths []Path) (Entry, []Refused) {
	var e Entry
	var refused []Refused
	for _, p := range paths {
		reason := pol.Refuses(p.Prefix)
		var hop NextHop
		if reason == "" {
			hop, reason = topo.Resolve(p)
		}
		if reason != "" {
			refused = append(refused, Refused{Prefix: p.Prefix, Peer: p.Peer, Reason: reason})
			continue
		}
		e.Hops = append(e.Hops, hop)
	}
	if len(e.Hops) > 1 {
		slices.SortFunc(e.Hops, compareHops)
		e.Hops = slices.Compact(e.Hops)
	}
	return e, refused
}

func compareHops(a, b NextHop) int {
	return cmp.Or(a.Gateway.Compare(b.Gateway), cmp.Compare(a.Link, b.Link))
}

// NewEntry is an entry over hops in any order.
func NewEntry(hops ...NextHop) Entry {
	slices.SortFunc(hops, compareHops)
	return Entry{Hops: slices.Compact(hops)}
}

// Change is one step for one prefix. Old is nil for an addition, New for a removal.
type Change struct {
	Prefix   netip.Prefix
	Old, New *Entry
}

// String is a line in the manner of diff: "+ prefix: new", "~ prefix: old -> new", "- prefix: old".
func (c Change) String() string {
	switch {
	case c.Old == nil:
		return fmt.Sprintf("+ %s: %s", c.Prefix, c.New)
	case c.New == nil:
		return fmt.Sprintf("- %s: %s", c.Prefix, c.Old)
	}
	return fmt.Sprintf("~ %s: %s -> %s", c.Prefix, c.Old, c.New)
}

// Failure is a change that was refused, and why.
type Failure struct {
	Change Change
	Err    error
}

func (f Failure) Error() string { return fmt.Sprintf("%s: %v", f.Change, f.Err) }

// Plan is what turns one table into another, sorted by prefix.
type Plan []Change

// String prints a change per line.
func (p Plan) String() string {
	var b strings.Builder
	for _, c := range p {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

// Diff is the plan that turns actual into desired.
func Diff(desired, actual FIB) Plan {
	var p Plan
	for prefix, want := range desired {
		have, ok := actual[prefix]
		switch {
		case !ok:
			p = append(p, Change{Prefix: prefix, New: &want})
		case !have.Equal(want):
			p = append(p, Change{Prefix: prefix, Old: &have, New: &want})
		}
	}
	for prefix, have := range actual {
		if _, ok := desired[prefix]; !ok {
			p = append(p, Change{Prefix: prefix, Old: &have})
		}
	}
	slices.SortFunc(p, func(a, b Change) int { return a.Prefix.Compare(b.Prefix) })
	return p
}
