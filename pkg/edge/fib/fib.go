// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
)

// Metric of our routes, which nobody else is known to use.
const Metric = wire.Metric

// Table is our part of the main tables, IPv4 and IPv6, of one namespace. It is not safe for concurrent use, Watch aside.
type Table struct {
	sock *wire.Socket
	hops nexthops
}

// Open opens the table of the calling thread's namespace. The caller closes it.
func Open() (*Table, error) {
	s, err := wire.Open()
	if err != nil {
		return nil, err
	}
	return &Table{sock: s}, nil
}

// Steady makes routes with several next hops keep flows where they are when a hop comes or goes (resilient groups, Linux
// 5.13), as a router in front of service addresses should. Without it the hash moves flows of hops that stay, too. It
// concerns groups that are made from now on.
func (t *Table) Steady() { t.hops.resilient = true }

// Close lets go of the sockets. The routes stay.
func (t *Table) Close() error { return t.sock.Close() }

// Read returns the routes that the kernel holds for us.
func (t *Table) Read() (route.FIB, error) {
	if err := t.hops.read(t.sock); err != nil {
		return nil, fmt.Errorf("read nexthops: %w", err)
	}
	out := route.FIB{}
	t.hops.forgetUse()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := t.readFamily(family, out); err != nil {
			return nil, fmt.Errorf("read routes: %w", err)
		}
	}
	for _, e := range out {
		t.hops.use(e, 1)
	}
	return out, nil
}

func (t *Table) readFamily(family byte, out route.FIB) error {
	again := func() { maps.DeleteFunc(out, func(p netip.Prefix, _ route.Entry) bool { return isFamily(p, family) }) }
	return t.sock.Dump(wire.DumpRoutes(family, mark.RouteRouted), again, func(typ uint16, body []byte) error {
		s, ok := wire.ParseRoute(body)
		if !ok || typ != unix.RTM_NEWROUTE || !s.Ours() || !isFamily(s.Prefix, family) {
			return nil
		}
		if e, ok := t.hops.entry(s.Nexthop); ok {
			s.Entry = e
		}
		out[s.Prefix] = s.Entry
		return nil
	})
}

func isFamily(p netip.Prefix, f byte) bool { return wire.Family(p.Addr()) == f }

// Apply carries out a plan and returns the changes that the kernel refused; the others took effect. The plan's Old
// entries must be what Read told or Apply did. An error means that the outcome is unknown: Read again.
func (t *Table) Apply(plan route.Plan) ([]route.Failure, error) {
	if !t.hops.known {
		if _, err := t.Read(); err != nil {
			return nil, err
		}
	}
	plan, err := t.hops.prepare(t.sock, plan)
	if err != nil {
		return nil, fmt.Errorf("write nexthops: %w", err)
	}
	b := t.sock.Batch()
	of := make([]int, 0, len(plan)) // the change that a request belongs to
	add := func(i int, write func([]byte) []byte) {
		if err == nil {
			of = append(of, i)
			err = b.Add(write)
		}
	}
	for i := range spread(len(plan)) {
		c := plan[i]
		set := func(flags uint16) func([]byte) []byte {
			return func(m []byte) []byte { return wire.NewRoute(m, c.Prefix, c.New, t.hops.id(c.New), flags) }
		}
		del := func(m []byte) []byte { return wire.DelRoute(m, c.Prefix, c.Old) }
		switch {
		case c.Op == route.Remove:
			add(i, del)
		case c.Op == route.Add:
			add(i, set(unix.NLM_F_EXCL))
		case c.Old.Unreachable() != c.New.Unreachable(): // another metric: two routes, never a gap
			add(i, set(unix.NLM_F_EXCL))
			add(i, del)
		default:
			add(i, set(unix.NLM_F_REPLACE))
		}
	}
	if err = errors.Join(err, b.Flush()); err != nil {
		return nil, fmt.Errorf("write routes: %w", err)
	}
	failures, err := t.judge(plan, of, b.Refused)
	if err != nil {
		return nil, err
	}
	t.hops.settle(plan, failures)
	if err := t.hops.collect(t.sock); err != nil {
		return nil, fmt.Errorf("remove nexthops: %w", err)
	}
	return failures, nil
}

// spread is 0 to n-1 in an order that halves, quarters and so on what comes before: the bits of a counter, reversed. The
// kernel's trie of IPv4 routes (net/ipv4/fib_trie.c) rebuilds its nodes again and again when a long sorted run of prefixes
// comes or goes: 1.6 us of CPU time for each addition and 3.1 for each removal, against 1.0 and 1.0 so.
func spread(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		width := bits.Len(uint(max(n-1, 0)))
		for count := range uint64(1) << width {
			if i := int(bits.Reverse64(count) >> (64 - width)); i < n && !yield(i) {
				return
			}
		}
	}
}

// Lose takes a gateway that has gone out of every entry that has another one: a message per set of next hops moves the
// traffic, however many routes hang on it. Prefixes with no other way stay as they are. It returns what became of what;
// nothing when the kernel has no nexthop objects. An error means that the outcome is unknown: Read again.
func (t *Table) Lose(gateway route.NextHop) ([]route.Moved, error) {
	if !t.hops.known || t.hops.absent {
		return nil, nil
	}
	moved, err := t.hops.lose(t.sock, gateway)
	if err != nil {
		t.hops.known = false
		return nil, fmt.Errorf("write nexthops: %w", err)
	}
	return moved, nil
}

// judge turns refusals into failures, less those that mean that all is as wished.
func (t *Table) judge(plan route.Plan, of []int, refused []wire.Refusal) ([]route.Failure, error) {
	var failures []route.Failure
	for _, r := range refused {
		c := plan[of[r.Index]]
		switch {
		case c.Op != route.Add && errors.Is(r.Err, unix.ESRCH):
			continue // already gone, as wished
		case errors.Is(r.Err, unix.EEXIST):
			mine, err := t.isThere(c)
			if err != nil {
				return nil, err
			}
			if mine {
				continue
			}
			r.Err = fmt.Errorf("another program holds this prefix at our metric %d: %w", Metric, r.Err)
		}
		if err := t.hops.reason(c.New); err != nil {
			r.Err = err
		}
		failures = append(failures, route.Failure{Change: c, Err: r.Err})
	}
	return failures, nil
}

// isThere reports that the route of c is ours, and puts it right.
func (t *Table) isThere(c route.Change) (bool, error) {
	ours := false
	err := t.sock.Dump(wire.DumpRoutes(wire.Family(c.Prefix.Addr()), mark.RouteRouted), func() { ours = false }, func(_ uint16, body []byte) error {
		s, ok := wire.ParseRoute(body)
		ours = ours || ok && s.Ours() && s.Prefix == c.Prefix && s.Sink == c.New.Unreachable()
		return nil
	})
	if err != nil || !ours {
		return false, err
	}
	b := t.sock.Batch()
	err = b.Add(func(m []byte) []byte { return wire.NewRoute(m, c.Prefix, c.New, t.hops.id(c.New), unix.NLM_F_REPLACE) })
	err = errors.Join(err, b.Flush())
	return len(b.Refused) == 0, err
}
