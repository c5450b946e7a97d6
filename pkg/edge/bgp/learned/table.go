// SPDX-License-Identifier: Apache-2.0

// Package learned holds what peers have told: the best ways to every prefix, and which of them changed.
package learned

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// offer is all best ways to one prefix; nil: none. It is shared between prefixes and never changed.
type offer struct {
	via []route.Via
	ids []uint32 // path identifiers (RFC 7911) beside via; nil when all are 0
}

// ways are all ways; the caller must not change them.
func (o *offer) ways() []route.Via {
	if o == nil {
		return nil
	}
	return o.via
}

func (o *offer) id(i int) uint32 {
	if o == nil || o.ids == nil {
		return 0
	}
	return o.ids[i]
}

// Table holds the best ways to every prefix. gobgp tells changes only, through a queue without bound; we empty that
// queue at once into this table, whose size is bounded by the number of prefixes, and a slow reader finds prefixes that
// changed, not a history.
type Table struct {
	mu      sync.Mutex
	offers  map[netip.Prefix]*offer
	dirty   map[netip.Prefix]struct{}
	count   map[netip.Addr]int   // ways per peer
	single  map[route.Via]*offer // offers of one way, of which there are as few as next hops
	changed chan struct{}
}

// New returns an empty table.
func New() *Table {
	return &Table{
		offers: map[netip.Prefix]*offer{}, dirty: map[netip.Prefix]struct{}{}, single: map[route.Via]*offer{},
		count: map[netip.Addr]int{}, changed: make(chan struct{}, 1),
	}
}

// Apply takes over changes and returns a peer that has named more ways than most allows it; 0: no limit. gobgp's own limit
// counts all that a peer sent anew with each message, which makes a large table quadratic.
func (t *Table) Apply(paths []*apiutil.Path, most func(peer netip.Addr) uint32) (tooMuch netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.dirty)
	var asked netip.Addr // of the last look-up of a limit: runs of paths come from one peer
	limit := 0
	for _, p := range paths {
		if p == nil || p.Family != bgp.RF_IPv4_UC && p.Family != bgp.RF_IPv6_UC || !p.PeerAddress.IsValid() { // without a peer it is our own
			continue
		}
		nlri, ok := p.Nlri.(*bgp.IPAddrPrefix)
		if !ok {
			continue
		}
		before := t.offers[nlri.Prefix]
		o := t.without(before, p.PeerAddress, p.RemoteID)
		t.count[p.PeerAddress] += len(o.ways()) - len(before.ways())
		if !p.Withdrawal {
			t.count[p.PeerAddress]++
			o = t.with(o, via(p), p.RemoteID)
		}
		if o == nil {
			delete(t.offers, nlri.Prefix)
		} else {
			t.offers[nlri.Prefix] = o
		}
		t.dirty[nlri.Prefix] = struct{}{}
		if p.PeerAddress != asked {
			asked, limit = p.PeerAddress, int(most(p.PeerAddress))
		}
		switch c := t.count[p.PeerAddress]; {
		case c == 0:
			delete(t.count, p.PeerAddress)
		case limit > 0 && c > limit:
			tooMuch = p.PeerAddress
		}
	}
	if len(t.dirty) > n {
		t.Signal()
	}
	return tooMuch
}

// without is o less the way that one peer named under one identifier.
func (t *Table) without(o *offer, peer netip.Addr, id uint32) *offer {
	var out *offer
	for i, v := range o.ways() {
		if v.Peer != peer || o.id(i) != id {
			out = t.with(out, v, o.id(i))
		}
	}
	return out
}

func (t *Table) with(o *offer, v route.Via, id uint32) *offer {
	if o == nil && id == 0 {
		one, ok := t.single[v]
		if !ok {
			one = &offer{via: []route.Via{v}}
			if len(t.single) >= 4096 { // a peer that invents next hops gets no memory for it
				clear(t.single)
			}
			t.single[v] = one
		}
		return one
	}
	out := &offer{via: append(slices.Clone(o.ways()), v)}
	if o != nil && o.ids != nil || id != 0 {
		for i := range o.ways() {
			out.ids = append(out.ids, o.id(i))
		}
		out.ids = append(out.ids, id)
	}
	return out
}

// Signal makes Changed tell, though nothing may have.
func (t *Table) Signal() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// manyDirty is more than changes at one time when no peer is telling its whole table.
const manyDirty = 4096

// Changed tells that Take has something to give. One token stands for any number of changes.
func (t *Table) Changed() <-chan struct{} { return t.changed }

// Take returns every prefix that changed since the last call; no way means that the prefix is gone.
func (t *Table) Take() []route.Learned {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]route.Learned, 0, len(t.dirty))
	for prefix := range t.dirty {
		out = append(out, route.Learned{Prefix: prefix, Via: t.offers[prefix].ways()})
	}
	if len(out) > manyDirty { // a map never shrinks
		t.dirty = map[netip.Prefix]struct{}{}
	}
	clear(t.dirty)
	return out
}

// All returns all prefixes.
func (t *Table) All() []route.Learned {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]route.Learned, 0, len(t.offers))
	for prefix, o := range t.offers {
		out = append(out, route.Learned{Prefix: prefix, Via: o.ways()})
	}
	return out
}
