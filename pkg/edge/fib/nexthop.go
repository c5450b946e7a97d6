// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

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
	nhaOIF        = 5
	nhaGateway    = 6
	sizeofNhmsg   = 8
	sizeofMember  = 8 // struct nexthop_grp
)

// firstID begins the range of our nexthop objects. Others (FRR's zebra) count from 1.
const firstID = mark.RouteRouted << 24

// nexthops are our nexthop objects in the kernel (linux/nexthop.h, 5.3). Every set of next hops that a route has is one
// group, also a set of one, and every next hop is one object. So a set can change under all its routes with a single
// message, and a lost next hop leaves all sets at once. Without kernel support routes name their next hops themselves.
type nexthops struct {
	known   bool // read has run, and nothing went wrong since
	absent  bool // the kernel has none
	single  map[route.NextHop]uint32
	group   map[string]uint32 // by set, see key
	sets    map[uint32]route.Entry
	uses    map[uint32]int // routes per group
	last    string         // the set looked up last, and its group: long runs of routes share one
	lastID  uint32
	scratch []byte

	// During one Apply: the set for which each request was made, and why sets could not be made.
	owners  []string
	refused map[string]error
}

// key is a map key for a set of hops.
func (n *nexthops) key(e route.Entry) []byte {
	k := n.scratch[:0]
	for _, h := range e.Hops {
		a := h.Gateway.As4()
		k = native.AppendUint32(append(k, a[:]...), uint32(h.Link))
	}
	n.scratch = k
	return k
}

// id is the group for an entry; 0: none, the route names its hops.
func (n *nexthops) id(e route.Entry) uint32 {
	if n.absent || e.Unreachable() {
		return 0
	}
	k := n.key(e)
	if string(k) != n.last || n.lastID == 0 {
		n.last, n.lastID = string(k), n.group[string(k)]
	}
	return n.lastID
}

// entry is the set behind a group of ours.
func (n *nexthops) entry(id uint32) (route.Entry, bool) {
	e, ok := n.sets[id]
	return e, ok
}

func (n *nexthops) use(e route.Entry, by int) {
	if id := n.id(e); id != 0 {
		n.uses[id] += by
	}
}

func (n *nexthops) forgetUse() { clear(n.uses) }

// read learns which objects of ours the kernel holds.
func (n *nexthops) read(s *socket) error {
	groups := map[uint32][]uint32{}
	hops := map[uint32]route.NextHop{}
	b := nlHeader(nil, rtmGetNexthop, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = finish(append(b, make([]byte, sizeofNhmsg)...), 0)
	err := s.dump(b, func() { clear(groups); clear(hops) }, func(_ uint16, body []byte) error {
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
			for ; len(members) >= sizeofMember; members = members[sizeofMember:] {
				groups[id] = append(groups[id], native.Uint32(members))
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
	n.single, n.group, n.sets, n.uses = map[route.NextHop]uint32{}, map[string]uint32{}, map[uint32]route.Entry{}, map[uint32]int{}
	n.last, n.lastID = "", 0
	for id, h := range hops {
		n.single[h] = id
	}
	for id, members := range groups {
		var hs []route.NextHop
		for _, m := range members {
			hs = append(hs, hops[m])
		}
		e := route.NewEntry(hs...)
		n.sets[id] = e
		n.group[string(n.key(e))] = id
	}
	return err
}

// prepare makes the objects that the plan needs, and carries out at once what one message can do for many routes: when
// all routes of a set move to the same new set, the set itself changes. What is left of the plan is returned.
func (n *nexthops) prepare(s *socket, plan route.Plan) (route.Plan, error) {
	n.refused = map[string]error{}
	if n.absent {
		return plan, nil
	}
	plan, err := n.moveSets(s, plan)
	if err != nil {
		n.known = false
		return nil, err
	}
	b := s.batch()
	n.owners = n.owners[:0]
	for _, c := range plan {
		if c.Op != route.Remove && !c.New.Unreachable() && n.id(c.New) == 0 {
			if err := n.write(b, n.freeID(), c.New, unix.NLM_F_EXCL); err != nil {
				return nil, err
			}
		}
	}
	if err := b.flush(); err != nil {
		return nil, err
	}
	for _, r := range b.refused { // the routes will be refused, too; this is the reason
		if k := n.owners[r.index]; n.refused[k] == nil {
			n.refused[k] = r.err
		}
	}
	return plan, nil
}

// reason is why the set of e could not be made, or nil.
func (n *nexthops) reason(e route.Entry) error { return n.refused[string(n.key(e))] }

// moveSets looks for sets that all routes leave for one that is new.
func (n *nexthops) moveSets(s *socket, plan route.Plan) (route.Plan, error) {
	type move struct {
		to    route.Entry
		count int
		split bool // not all go to the same set
	}
	moves := map[string]*move{}
	for _, c := range plan {
		if c.Op != route.Replace || c.Old.Unreachable() || c.New.Unreachable() {
			continue
		}
		m := moves[string(n.key(c.Old))]
		if m == nil {
			m = &move{to: c.New}
			moves[string(n.key(c.Old))] = m
		}
		m.count++
		m.split = m.split || !m.to.Equal(c.New)
	}
	b := s.batch()
	for from, m := range moves {
		id := n.group[from]
		if id == 0 || m.split || m.count < n.uses[id] || n.id(m.to) != 0 {
			delete(moves, from)
			continue
		}
		if err := n.write(b, id, m.to, unix.NLM_F_REPLACE); err != nil {
			return nil, err
		}
	}
	if len(moves) == 0 {
		return plan, nil
	}
	if err := b.flush(); err != nil {
		return nil, err
	}
	if len(b.refused) > 0 {
		return nil, b.refused[0].err
	}
	return slices.DeleteFunc(slices.Clone(plan), func(c route.Change) bool {
		return c.Op == route.Replace && !c.Old.Unreachable() && !c.New.Unreachable() && moves[string(n.key(c.Old))] != nil
	}), nil
}

// write makes a group what e says, and the objects that it needs before.
func (n *nexthops) write(b *batch, id uint32, e route.Entry, flags uint16) error {
	if old, ok := n.sets[id]; ok {
		delete(n.group, string(n.key(old)))
	}
	owner := string(n.key(e))
	n.sets[id], n.group[owner] = e, id
	n.last, n.lastID = "", 0
	members := make([]byte, 0, len(e.Hops)*sizeofMember)
	for _, h := range e.Hops {
		hid, ok := n.single[h]
		if !ok {
			hid = n.freeID()
			n.single[h] = hid
			n.owners = append(n.owners, owner)
			err := b.add(func(m []byte) []byte {
				at := len(m)
				m = nexthopHeader(m, rtmNewNexthop, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.AF_INET, hid)
				m = attrUint32(m, nhaOIF, uint32(h.Link))
				return finish(attrAddr(m, nhaGateway, h.Gateway), at)
			})
			if err != nil {
				return err
			}
		}
		members = native.AppendUint32(members, hid)
		members = append(members, 0, 0, 0, 0) // weight 1 is written as 0
	}
	n.owners = append(n.owners, owner)
	return b.add(func(m []byte) []byte {
		at := len(m)
		m = nexthopHeader(m, rtmNewNexthop, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|flags, unix.AF_UNSPEC, id)
		return finish(attr(m, nhaGroup, members), at)
	})
}

func nexthopHeader(m []byte, typ, flags uint16, family byte, id uint32) []byte {
	protocol := byte(mark.RouteRouted)
	if typ == rtmDelNexthop { // the kernel wants none
		protocol = 0
	}
	m = nlHeader(m, typ, flags)
	m = append(m, family, 0, protocol, 0, 0, 0, 0, 0)
	return attrUint32(m, nhaID, id)
}

// freeID is the lowest number of our range that no object of ours has.
func (n *nexthops) freeID() uint32 {
	taken := map[uint32]bool{}
	for _, id := range n.single {
		taken[id] = true
	}
	for id := range n.sets {
		taken[id] = true
	}
	id := uint32(firstID)
	for taken[id] {
		id++
	}
	return id
}

// settle counts which routes use which set after a plan.
func (n *nexthops) settle(plan route.Plan, failures []route.Failure) {
	if n.absent {
		return
	}
	failed := map[netip.Prefix]bool{}
	for _, f := range failures {
		failed[f.Change.Prefix] = true
	}
	for _, c := range plan {
		if failed[c.Prefix] {
			continue
		}
		n.use(c.Old, -1)
		n.use(c.New, 1)
	}
}

// collect removes objects that nothing uses any more: groups, then the hops that no group has.
func (n *nexthops) collect(s *socket) error {
	if n.absent {
		return nil
	}
	b := s.batch()
	var err error
	remove := func(id uint32) {
		err = errors.Join(err, b.add(func(m []byte) []byte {
			at := len(m)
			return finish(nexthopHeader(m, rtmDelNexthop, unix.NLM_F_REQUEST, unix.AF_UNSPEC, id), at)
		}))
	}
	used := map[route.NextHop]bool{}
	for id, e := range n.sets {
		if n.uses[id] > 0 {
			for _, h := range e.Hops {
				used[h] = true
			}
			continue
		}
		remove(id)
		delete(n.uses, id)
		delete(n.sets, id)
		delete(n.group, string(n.key(e)))
		n.last, n.lastID = "", 0
	}
	for h, id := range n.single {
		if !used[h] {
			remove(id)
			delete(n.single, h)
		}
	}
	err = errors.Join(err, b.flush())
	for _, r := range b.refused {
		if !errors.Is(r.err, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("nexthop: %w", r.err))
		}
	}
	return err
}
