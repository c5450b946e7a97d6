// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// Table is our part of the main IPv4 table of one namespace. It is not safe for concurrent use, Watch aside.
type Table struct {
	sock *socket
	hops nexthops
}

// Open opens the table of the calling thread's namespace. The caller closes it.
func Open() (*Table, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	return &Table{sock: s}, nil
}

// Close lets go of the sockets. The routes stay.
func (t *Table) Close() error { return t.sock.close() }

// Read returns the routes that the kernel holds for us.
func (t *Table) Read() (route.FIB, error) {
	if err := t.hops.read(t.sock); err != nil {
		return nil, fmt.Errorf("read nexthops: %w", err)
	}
	var out route.FIB
	err := t.sock.dump(dumpRoutes(), func() { out = route.FIB{}; t.hops.forgetUse() }, func(typ uint16, body []byte) error {
		s, ok := parseRoute(body)
		if !ok || typ != unix.RTM_NEWROUTE || !s.ours() {
			return nil
		}
		if e, ok := t.hops.entry(s.nexthop); ok {
			s.entry = e
			t.hops.use(e, 1)
		}
		out[s.prefix] = s.entry
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	return out, nil
}

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
	b := t.sock.batch()
	of := make([]int, 0, len(plan)) // the change that a request belongs to
	add := func(i int, write func([]byte) []byte) {
		if err == nil {
			of = append(of, i)
			err = b.add(write)
		}
	}
	for i, c := range plan {
		set := func(flags uint16) func([]byte) []byte {
			return func(m []byte) []byte { return newRoute(m, c.Prefix, c.New, t.hops.id(c.New), flags) }
		}
		del := func(m []byte) []byte { return delRoute(m, c.Prefix, c.Old) }
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
	if err = errors.Join(err, b.flush()); err != nil {
		return nil, fmt.Errorf("write routes: %w", err)
	}
	failures, err := t.judge(plan, of, b.refused)
	if err != nil {
		return nil, err
	}
	t.hops.settle(plan, failures)
	if err := t.hops.collect(t.sock); err != nil {
		return nil, fmt.Errorf("remove nexthops: %w", err)
	}
	return failures, nil
}

// judge turns refusals into failures, less those that mean that all is as wished.
func (t *Table) judge(plan route.Plan, of []int, refused []refusal) ([]route.Failure, error) {
	var failures []route.Failure
	for _, r := range refused {
		c := plan[of[r.index]]
		switch {
		case c.Op != route.Add && errors.Is(r.err, unix.ESRCH):
			continue // already gone, as wished
		case errors.Is(r.err, unix.EEXIST):
			mine, err := t.isThere(c)
			if err != nil {
				return nil, err
			}
			if mine {
				continue
			}
			r.err = fmt.Errorf("another program holds this prefix at our metric %d: %w", Metric, r.err)
		}
		if err := t.hops.reason(c.New); err != nil {
			r.err = err
		}
		failures = append(failures, route.Failure{Change: c, Err: r.err})
	}
	return failures, nil
}

// isThere reports that the route of c is ours, and puts it right.
func (t *Table) isThere(c route.Change) (bool, error) {
	ours := false
	err := t.sock.dump(dumpRoutes(), func() { ours = false }, func(_ uint16, body []byte) error {
		s, ok := parseRoute(body)
		ours = ours || ok && s.ours() && s.prefix == c.Prefix && s.sink == c.New.Unreachable()
		return nil
	})
	if err != nil || !ours {
		return false, err
	}
	b := t.sock.batch()
	err = b.add(func(m []byte) []byte { return newRoute(m, c.Prefix, c.New, t.hops.id(c.New), unix.NLM_F_REPLACE) })
	err = errors.Join(err, b.flush())
	return len(b.refused) == 0, err
}

// Topology returns what the namespace is directly connected to: addresses of links that are up and have carrier.
func (t *Table) Topology() (route.Topology, error) {
	up := map[int]bool{}
	err := t.sock.dump(dumpMsg(unix.RTM_GETLINK, unix.SizeofIfInfomsg), func() { clear(up) }, func(_ uint16, body []byte) error {
		if len(body) >= unix.SizeofIfInfomsg {
			flags := native.Uint32(body[8:])
			up[int(native.Uint32(body[4:]))] = flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0
		}
		return nil
	})
	if err != nil {
		return route.Topology{}, fmt.Errorf("read links: %w", err)
	}
	var topo route.Topology
	err = t.sock.dump(dumpMsg(unix.RTM_GETADDR, unix.SizeofIfAddrmsg), func() { topo = route.Topology{} }, func(_ uint16, body []byte) error {
		if len(body) < unix.SizeofIfAddrmsg || body[0] != unix.AF_INET {
			return nil
		}
		a := attrs(body[unix.SizeofIfAddrmsg:])
		self, ok := netip.AddrFromSlice(a[unix.IFA_LOCAL])
		onLink, ok2 := netip.AddrFromSlice(a[unix.IFA_ADDRESS]) // the far end of a point-to-point link
		if !ok || !ok2 {
			return nil
		}
		topo.Self = append(topo.Self, self)
		link := int(native.Uint32(body[4:]))
		if up[link] && !self.IsLoopback() {
			topo.OnLink = append(topo.OnLink, route.OnLink{Prefix: netip.PrefixFrom(onLink, int(body[1])).Masked(), Link: link})
		}
		return nil
	})
	if err != nil {
		return route.Topology{}, fmt.Errorf("read addresses: %w", err)
	}
	return topo, nil
}

func dumpMsg(typ uint16, size int) []byte {
	b := nlHeader(nil, typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, make([]byte, size)...)
	if typ == unix.RTM_GETADDR {
		b[unix.SizeofNlMsghdr] = unix.AF_INET
	}
	return finish(b, 0)
}
