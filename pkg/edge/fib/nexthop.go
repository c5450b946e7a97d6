// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
)

// From linux/nexthop.h and linux/rtnetlink.h; x/sys/unix does not have all of them.
const (
	rtmNewNexthop = 104
	rtmDelNexthop = 105
	rtmGetNexthop = 106
	rtaNHID       = 30
	nhaID         = 1
	nhaGroup      = 2
	nhaGroupType  = 3
	nhaOIF        = 5
	nhaGateway    = 6
	nhaResGroup   = 12
	resBuckets    = 1 // within nhaResGroup
	typeResilient = 1 // of nhaGroupType
	sizeofNhmsg   = 8
	sizeofMember  = 8 // struct nexthop_grp
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
		k = append(native.AppendUint32(append(k, a[:]...), uint32(h.Link)), kernelWeight(h))
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
func (n *nexthops) join(id uint32, e route.Entry) *set {
	k := string(n.key(e))
	s := n.sets[k]
	if s == nil {
		s = &set{entry: e}
		n.sets[k] = s
	}
	s.ids = append(s.ids, id)
	n.byID[id], n.taken[id] = s, true
	n.last, n.lastSet = "", nil
	return s
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

// member is one hop of a group.
type member struct {
	id     uint32
	weight int
}

// read learns which objects of ours the kernel holds.
func (n *nexthops) read(s *socket) error {
	groups := map[uint32][]member{}
	hops, steady := map[uint32]route.NextHop{}, map[uint32]bool{}
	b := nlHeader(nil, rtmGetNexthop, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = finish(append(b, make([]byte, sizeofNhmsg)...), 0)
	err := s.dump(b, func() { clear(groups); clear(hops); clear(steady) }, func(_ uint16, body []byte) error {
		if len(body) < sizeofNhmsg || body[2] != mark.RouteRouted {
			return nil
		}
		a := attrs(body[sizeofNhmsg:])
		if len(a[nhaID]) < 4 {
			return nil
		}
		id := native.Uint32(a[nhaID])
		if members, ok := a[nhaGroup]; ok {
			groups[id] = nil
			if typ := a[nhaGroupType]; len(typ) >= 2 && native.Uint16(typ) == typeResilient {
				steady[id] = true
			}
			for ; len(members) >= sizeofMember; members = members[sizeofMember:] {
				groups[id] = append(groups[id], member{native.Uint32(members), int(members[4]) + 1})
			}
		} else if gw, ok := netip.AddrFromSlice(a[nhaGateway]); ok && len(a[nhaOIF]) >= 4 {
			hops[id] = route.NextHop{Gateway: gw, Link: int(native.Uint32(a[nhaOIF]))}
		}
		return nil
	})
	n.known, n.absent = true, errors.Is(err, unix.EOPNOTSUPP)
	if n.absent {
		return nil
	}
	n.single, n.sets, n.byID, n.taken = map[route.NextHop]uint32{}, map[string]*set{}, map[uint32]*set{}, map[uint32]bool{}
	n.last, n.lastSet, n.steady = "", nil, steady
	for id, h := range hops {
		n.single[h], n.taken[id] = id, true
	}
	for id, members := range groups {
		var hs []route.NextHop
		for _, m := range members {
			h := hops[m.id]
			h.Weight = m.weight
			hs = append(hs, h)
		}
		n.join(id, route.NewEntry(hs...))
	}
	return err
}
