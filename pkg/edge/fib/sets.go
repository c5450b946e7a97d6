// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
)

// prepare makes the objects that the plan needs, and carries out at once what one message can do for many routes: when
// all routes of a set move to the same other set, the set itself changes. What is left of the plan is returned.
func (n *nexthops) prepare(s *wire.Socket, plan route.Plan) (route.Plan, error) {
	n.refused = map[string]error{}
	if n.absent {
		return plan, nil
	}
	plan, err := n.moveSets(s, plan)
	if err != nil {
		n.known = false
		return nil, err
	}
	b := s.Batch()
	n.owners = n.owners[:0]
	for _, c := range plan {
		if c.Op != route.Remove && !c.New.Unreachable() && n.find(c.New) == nil {
			if err := n.write(b, n.freeID(), c.New, unix.NLM_F_EXCL); err != nil {
				return nil, err
			}
		}
	}
	if err := b.Flush(); err != nil {
		return nil, err
	}
	if len(b.Refused) > 0 && n.resilient && len(n.steady) > 0 && !n.proven { // the kernel may be older than 5.13
		n.resilient, n.known = false, false
		return nil, fmt.Errorf("resilient groups, going on without them: %w", b.Refused[0].Err)
	}
	n.proven = n.proven || len(n.steady) > 0
	for _, r := range b.Refused { // the routes will be refused, too; this is the reason
		if k := n.owners[r.Index]; n.refused[k] == nil {
			n.refused[k] = r.Err
		}
	}
	return plan, nil
}

// reason is why the set of e could not be made, or nil.
func (n *nexthops) reason(e route.Entry) error { return n.refused[string(n.key(e))] }

// move is a set that all its routes leave for the same other one.
type move struct {
	to    route.Entry
	count int
	split bool // not all go to the same set
}

func isMove(c route.Change) bool {
	return c.Op == route.Replace && !c.Old.Unreachable() && !c.New.Unreachable()
}

// moveSets looks for sets that all routes leave for the same other set.
func (n *nexthops) moveSets(s *wire.Socket, plan route.Plan) (route.Plan, error) {
	moves := map[*set]*move{}
	for _, c := range plan {
		if !isMove(c) {
			continue
		}
		from := n.find(c.Old)
		if from == nil {
			continue
		}
		m := moves[from]
		if m == nil {
			m = &move{to: c.New}
			moves[from] = m
		}
		m.count++
		m.split = m.split || !m.to.Equal(c.New)
	}
	for from, m := range moves {
		if m.split || m.count < from.uses || n.wantsSteady(m.to) && slices.ContainsFunc(from.ids, func(id uint32) bool { return !n.steady[id] }) {
			delete(moves, from)
		}
	}
	if len(moves) == 0 {
		return plan, nil
	}
	rest := slices.DeleteFunc(slices.Clone(plan), func(c route.Change) bool { return isMove(c) && moves[n.find(c.Old)] != nil })
	b := s.Batch()
	for from, m := range moves {
		if err := n.become(b, from, m.to); err != nil {
			return nil, err
		}
	}
	return rest, finishMoves(b)
}

func finishMoves(b *wire.Batch) error {
	if err := b.Flush(); err != nil {
		return err
	}
	if len(b.Refused) > 0 {
		return b.Refused[0].Err
	}
	return nil
}

// become turns one set, with all its routes, into another.
func (n *nexthops) become(b *wire.Batch, from *set, to route.Entry) error {
	n.drop(from)
	for _, id := range from.ids {
		if err := n.write(b, id, to, unix.NLM_F_REPLACE); err != nil {
			return err
		}
	}
	n.byID[from.ids[0]].uses += from.uses
	return nil
}

// write makes a group what e says, and the objects that it needs before.
func (n *nexthops) write(b *wire.Batch, id uint32, e route.Entry, flags uint16) error {
	n.join(id, e)
	owner := string(n.key(e))
	group := wire.Nexthop{ID: id}
	for _, h := range e.Hops {
		weight := int(wire.Weight(h)) + 1
		h.Weight = 0
		hid, ok := n.single[h]
		if !ok {
			hid = n.freeID()
			n.single[h] = hid
			n.owners = append(n.owners, owner)
			if err := b.Add(func(m []byte) []byte { return wire.AppendHop(m, hid, h) }); err != nil {
				return err
			}
		}
		group.Members = append(group.Members, wire.Member{ID: hid, Weight: weight})
	}
	n.owners = append(n.owners, owner)
	if flags&unix.NLM_F_EXCL != 0 && n.wantsSteady(e) {
		n.steady[id] = true
	}
	group.Steady = n.steady[id]
	return b.Add(func(m []byte) []byte { return wire.AppendGroup(m, group, flags) })
}

// wantsSteady reports that the group of a new set should be resilient.
func (n *nexthops) wantsSteady(e route.Entry) bool { return n.resilient && len(e.Hops) > 1 }

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
		if len(failed) > 0 && failed[c.Prefix] {
			continue
		}
		n.use(c.Old, -1)
		n.use(c.New, 1)
	}
}

// collect removes objects that nothing uses any more: groups, then the hops that no group has.
func (n *nexthops) collect(s *wire.Socket) error {
	if n.absent {
		return nil
	}
	b := s.Batch()
	var err error
	remove := func(id uint32) {
		err = errors.Join(err, b.Add(func(m []byte) []byte { return wire.AppendDelNexthop(m, id) }))
		delete(n.taken, id)
		delete(n.steady, id)
	}
	used := map[route.NextHop]bool{}
	for _, x := range n.sets {
		if x.uses > 0 {
			for _, h := range x.entry.Hops {
				h.Weight = 0
				used[h] = true
			}
			continue
		}
		for _, id := range x.ids {
			remove(id)
			delete(n.byID, id)
		}
		n.drop(x)
	}
	for h, id := range n.single {
		if !used[h] {
			remove(id)
			delete(n.single, h)
		}
	}
	err = errors.Join(err, b.Flush())
	for _, r := range b.Refused {
		if !errors.Is(r.Err, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("nexthop: %w", r.Err))
		}
	}
	return err
}

// lose takes a gateway out of every set that has another one.
func (n *nexthops) lose(s *wire.Socket, gone route.NextHop) ([]route.Moved, error) {
	var out []route.Moved
	from := []*set{}
	for _, x := range n.sets {
		rest := slices.DeleteFunc(slices.Clone(x.entry.Hops), func(h route.NextHop) bool { return h.Gateway == gone.Gateway && h.Link == gone.Link })
		if len(rest) > 0 && len(rest) < len(x.entry.Hops) {
			from = append(from, x)
			out = append(out, route.Moved{From: x.entry, To: route.NewEntry(rest...)})
		}
	}
	b := s.Batch()
	for i, x := range from {
		if err := n.become(b, x, out[i].To); err != nil {
			return nil, err
		}
	}
	return out, finishMoves(b)
}
