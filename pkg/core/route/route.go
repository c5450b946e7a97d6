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

// Via is one way to a prefix: the next hop that a peer named. Link-local addresses carry the link's name as their zone.
type Via struct {
	NextHop netip.Addr
	Peer    netip.Addr // who told us
	// Bandwidth is what the way can carry in bytes per second (link-bandwidth community); 0: not told. When it is told
	// for all ways to a prefix, each gets traffic in proportion.
	Bandwidth uint64
}

// Learned is a prefix with all best ways to it, of equal worth (multipath). None means that the prefix is gone.
// Via is shared between prefixes and never changed.
type Learned struct {
	Prefix netip.Prefix
	Via    []Via
}

// NextHop is where the kernel sends packets: a gateway on a directly connected link.
type NextHop struct {
	Gateway netip.Addr // without zone
	Link    int        // interface index
	// Weight is the hop's share among those of an Entry, from 1 to MaxWeight; all are 0 when the shares are equal.
	Weight int
}

// Entry is the forwarding decision for one prefix: one next hop, several of equal worth, or, with none, unreachable.
type Entry struct{ Hops []NextHop }

// Unreachable reports that packets are refused (RTN_UNREACHABLE).
func (e Entry) Unreachable() bool { return len(e.Hops) == 0 }

// Equal compares two entries; hops are sorted by construction.
func (e Entry) Equal(o Entry) bool { return slices.Equal(e.Hops, o.Hops) }

// String is "via 10.20.30.1", "via 10.20.30.1 10.20.30.2", "via 10.20.30.1*3 10.20.30.2*1" (by weight) or "unreachable".
func (e Entry) String() string {
	if e.Unreachable() {
		return "unreachable"
	}
	var b strings.Builder
	b.WriteString("via")
	for _, h := range e.Hops {
		b.WriteString(" " + h.Gateway.String())
		if h.Weight > 0 {
			fmt.Fprintf(&b, "*%d", h.Weight)
		}
	}
	return b.String()
}

// FIB is a forwarding table by prefix.
type FIB map[netip.Prefix]Entry

// Moved is an entry that became another, whatever the prefixes that have it.
type Moved struct{ From, To Entry }

// Move carries out moves on a table.
func (f FIB) Move(moves []Moved) {
	for p, e := range f {
		if i := slices.IndexFunc(moves, func(m Moved) bool { return m.From.Equal(e) }); i >= 0 {
			f[p] = moves[i].To
		}
	}
}

// Intent is a prefix that this node would announce, and whether its local proof holds.
type Intent struct {
	Prefix netip.Prefix
	Why    string // what it is: "pod subnet"
	Lacks  string // what is missing before it may be announced; empty: the proof holds
	Sink   bool   // addresses of it that nothing on the node holds are unreachable, so that no packet goes back to the fabric
	// Leaving asks others to prefer other ways (GRACEFUL_SHUTDOWN, RFC 8326).
	Leaving bool
	// Share is how much of it is here: others send traffic in proportion. 0: not told.
	Share int
}

// Announcement is a prefix to announce and why.
type Announcement struct {
	Prefix  netip.Prefix `json:"prefix"`
	Why     string       `json:"why"`
	Leaving bool         `json:"leaving,omitempty"` // with GRACEFUL_SHUTDOWN
	Share   int          `json:"share,omitempty"`   // told as link bandwidth
}

// Held is a prefix that is not announced, and what it lacks.
type Held struct {
	Prefix netip.Prefix `json:"prefix"`
	Why    string       `json:"why"`
	Lacks  string       `json:"lacks"`
}

// Refused is a learned way that is not used, and the reason.
type Refused struct {
	Prefix netip.Prefix `json:"prefix"`
	Peer   netip.Addr   `json:"peer"`
	Reason string       `json:"reason"`
}

// Input is everything a decision rests on.
type Input struct {
	Policy   Policy
	Intents  []Intent
	Learned  []Learned // each prefix once
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
	d := Decision{FIB: make(FIB, len(in.Learned))}
	res := NewResolver(in.Topology)
	for _, l := range in.Learned {
		entry, refused := Choose(in.Policy, res, l)
		if !entry.Unreachable() {
			d.FIB[l.Prefix] = entry
		}
		d.Refused = append(d.Refused, refused...)
	}
	for _, i := range in.Intents {
		if i.Sink {
			d.FIB[i.Prefix] = Entry{}
		}
		if i.Lacks == "" {
			d.Announce = append(d.Announce, Announcement{Prefix: i.Prefix, Why: i.Why, Leaving: i.Leaving, Share: i.Share})
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

// Choose decides one prefix. An entry without hops means that no way was usable: leave the prefix out.
func Choose(pol Policy, res *Resolver, l Learned) (Entry, []Refused) {
	if len(l.Via) == 0 {
		return Entry{}, nil
	}
	if reason := pol.Refuses(l.Prefix); reason != "" {
		refused := make([]Refused, len(l.Via))
		for i, v := range l.Via {
			refused[i] = Refused{Prefix: l.Prefix, Peer: v.Peer, Reason: reason}
		}
		return Entry{}, refused
	}
	way := func(v Via) resolution {
		if reason := pol.refusesHop(v.NextHop); reason != "" {
			return resolution{reason: reason}
		}
		return res.resolve(l.Prefix, v)
	}
	if len(l.Via) == 1 { // by far the most frequent; the entry is shared
		r := way(l.Via[0])
		if r.reason != "" {
			return Entry{}, []Refused{{Prefix: l.Prefix, Peer: l.Via[0].Peer, Reason: r.reason}}
		}
		return r.entry, nil
	}
	var hops []NextHop
	var refused []Refused
	weights := shares(l.Via)
	for i, v := range l.Via {
		if r := way(v); r.reason == "" {
			hop := r.entry.Hops[0]
			hop.Weight = weights[i]
			hops = append(hops, hop)
		} else {
			refused = append(refused, Refused{Prefix: l.Prefix, Peer: v.Peer, Reason: r.reason})
		}
	}
	return NewEntry(hops...), refused
}

// Op says what a Change does.
type Op byte

// What a Change does.
const (
	Add     Op = '+'
	Replace Op = '~'
	Remove  Op = '-'
)

// Change is one step for one prefix. Old is zero for an Add, New for a Remove.
type Change struct {
	Op       Op
	Prefix   netip.Prefix
	Old, New Entry
}

// String is a line in the manner of diff: "+ prefix: new", "~ prefix: old -> new", "- prefix: old".
func (c Change) String() string {
	switch c.Op {
	case Add:
		return fmt.Sprintf("+ %s: %s", c.Prefix, c.New)
	case Remove:
		return fmt.Sprintf("- %s: %s", c.Prefix, c.Old)
	default:
		return fmt.Sprintf("~ %s: %s -> %s", c.Prefix, c.Old, c.New)
	}
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

// Sort orders the plan by prefix.
func (p Plan) Sort() {
	slices.SortFunc(p, func(a, b Change) int { return a.Prefix.Compare(b.Prefix) })
}

// Diff is the plan that turns actual into desired.
func Diff(desired, actual FIB) Plan {
	var p Plan
	for prefix := range desired {
		p = Step(p, prefix, desired, actual)
	}
	for prefix := range actual {
		if _, ok := desired[prefix]; !ok {
			p = Step(p, prefix, desired, actual)
		}
	}
	p.Sort()
	return p
}

// Step appends to p what one prefix needs, if anything. The plan is not sorted.
func Step(p Plan, prefix netip.Prefix, desired, actual FIB) Plan {
	want, wanted := desired[prefix]
	have, there := actual[prefix]
	switch {
	case wanted && !there:
		return append(p, Change{Op: Add, Prefix: prefix, New: want})
	case !wanted && there:
		return append(p, Change{Op: Remove, Prefix: prefix, Old: have})
	case wanted && !have.Equal(want):
		return append(p, Change{Op: Replace, Prefix: prefix, Old: have, New: want})
	}
	return p
}
