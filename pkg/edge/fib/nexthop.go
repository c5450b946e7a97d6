// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
)

// firstID begins the range of our nexthop objects. Others (FRR's zebra) count from 1.
const firstID = mark.RouteRouted << 24

// nexthops are our nexthop objects in the kernel (linux/nexthop.h, 5.3). Every set of next hops that a route has is one
// group, also a set of one, and every next hop is one object. So a set can change under all its routes with a single
// message, and a lost next hop leaves all sets at once. Without kernel support routes name their next hops themselves.
type nexthops struct {
	known   bool                     // read has run, and nothing went wrong since
	absent  bool                     // the kernel has none
	single  map[route.NextHop]uint32 // without weight
	sets    map[string]*set          // by their hops, see key
	byID    map[uint32]*set          // by group
	taken   map[uint32]bool          // numbers of groups and hops
	steady  map[uint32]bool          // groups that are resilient
	next    uint32                   // where to look for a free one
	last    string                   // the set looked up last: long runs of routes share one
	lastSet *set
	scratch []byte
	// resilient is the wish for groups that keep flows where they are when a hop comes or goes.
	resilient bool
	proven    bool // the kernel has made one

	// During one Apply: the set for which each request was made, and why sets could not be made.
	owners  []string
	refused map[string]error
}

// set is the next hops of some routes. When all routes of one set move to another, the first one's group becomes the
// second's, so that a set may have several groups; new routes take the first.
type set struct {
	entry route.Entry
	ids   []uint32
	uses  int // routes
}

// key is a map key for a set of hops.
func (n *nexthops) key(e route.Entry) []byte {
	k := n.scratch[:0]
	for _, h := range e.Hops {
		a := h.Gateway.As16()
		k = append(wire.Native.AppendUint32(append(k, a[:]...), uint32(h.Link)), wire.Weight(h))
	}
	n.scratch = k
	return k
}

// find is the set of an entry, nil when there is none.
func (n *nexthops) find(e route.Entry) *set {
	if n.absent || e.Unreachable() {
		return nil
	}
	k := n.key(e)
	if string(k) != n.last || n.lastSet == nil {
		n.last, n.lastSet = string(k), n.sets[string(k)]
	}
	return n.lastSet
}

// id is the group for an entry; 0: none, the route names its hops.
func (n *nexthops) id(e route.Entry) uint32 {
	if s := n.find(e); s != nil {
		return s.ids[0]
	}
	return 0
}

// entry is the set behind a group of ours.
func (n *nexthops) entry(id uint32) (route.Entry, bool) {
	if s := n.byID[id]; s != nil {
		return s.entry, true
	}
	return route.Entry{}, false
}

func (n *nexthops) use(e route.Entry, by int) {
	if s := n.find(e); s != nil {
		s.uses += by
	}
}

func (n *nexthops) forgetUse() {
	for _, s := range n.sets {
		s.uses = 0
	}
}

// join makes a group one of those of the set e.
func (n *nexthops) join(id uint32, e route.Entry) {
	k := string(n.key(e))
	s := n.sets[k]
	if s == nil {
		s = &set{entry: e}
		n.sets[k] = s
	}
	s.ids = append(s.ids, id)
	n.byID[id], n.taken[id] = s, true
	n.last, n.lastSet = "", nil
}

// drop forgets a set whose groups have gone or become another's.
func (n *nexthops) drop(s *set) {
	delete(n.sets, string(n.key(s.entry)))
	n.last, n.lastSet = "", nil
}

// freeID is a number of our range that no object of ours has.
func (n *nexthops) freeID() uint32 {
	for n.taken[n.next] || n.next>>24 != firstID>>24 {
		n.next++
		if n.next>>24 != firstID>>24 {
			n.next = firstID
		}
	}
	n.taken[n.next] = true
	return n.next
}

// read learns which objects of ours the kernel holds.
func (n *nexthops) read(s *wire.Socket) error {
	var all []wire.Nexthop
	err := s.Dump(wire.DumpNexthops(), func() { all = nil }, func(_ uint16, body []byte) error {
		if x, ok := wire.ParseNexthop(body); ok {
			all = append(all, x)
		}
		return nil
	})
	n.known, n.absent = true, errors.Is(err, unix.EOPNOTSUPP)
	if n.absent {
		return nil
	}
	n.single, n.sets, n.byID, n.taken = map[route.NextHop]uint32{}, map[string]*set{}, map[uint32]*set{}, map[uint32]bool{}
	n.last, n.lastSet, n.steady = "", nil, map[uint32]bool{}
	hops := map[uint32]route.NextHop{}
	for _, x := range all {
		if !x.IsGroup {
			hops[x.ID], n.single[x.Hop], n.taken[x.ID] = x.Hop, x.ID, true
		}
	}
	for _, x := range all {
		if !x.IsGroup {
			continue
		}
		var hs []route.NextHop
		for _, m := range x.Members {
			h := hops[m.ID]
			h.Weight = m.Weight
			hs = append(hs, h)
		}
		n.join(x.ID, route.NewEntry(hs...))
		if x.Steady {
			n.steady[x.ID] = true
		}
	}
	return err
}
