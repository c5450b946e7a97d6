// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// Table is our part of the main IPv4 table of one namespace. It is not safe for concurrent use, Watch aside.
type Table struct{ sock *socket }

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
	var out route.FIB
	err := t.sock.dump(dumpRoutes(), func() { out = route.FIB{} }, func(typ uint16, body []byte) error {
		if s, ok := parseRoute(body); ok && typ == unix.RTM_NEWROUTE && s.ours() {
			out[s.prefix] = s.entry
		}
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
	var msgs [][]byte
	var of []int // the change that a message belongs to
	add := func(i int, m []byte) { msgs, of = append(msgs, m), append(of, i) }
	for i, c := range plan {
		switch {
		case c.New == nil:
			add(i, delRoute(c.Prefix, *c.Old))
		case c.Old == nil:
			add(i, newRoute(c.Prefix, *c.New, unix.NLM_F_EXCL))
		case c.Old.Unreachable() != c.New.Unreachable(): // another metric: two routes, never a gap
			add(i, newRoute(c.Prefix, *c.New, unix.NLM_F_EXCL))
			add(i, delRoute(c.Prefix, *c.Old))
		default:
			add(i, newRoute(c.Prefix, *c.New, unix.NLM_F_REPLACE))
		}
	}
	refused, err := t.sock.batch(msgs)
	if err != nil {
		return nil, fmt.Errorf("write routes: %w", err)
	}
	var failures []route.Failure
	for _, r := range refused {
		c := plan[of[r.index]]
		switch {
		case c.New == nil && errors.Is(r.err, unix.ESRCH):
			continue // already gone, as wished
		case errors.Is(r.err, unix.EEXIST):
			mine, err := t.isThere(c)
			if err != nil {
				return nil, err
			}
			if mine {
				continue
			}
			r.err = fmt.Errorf("another daemon holds this prefix at our metric %d: %w", Metric, r.err)
		}
		failures = append(failures, route.Failure{Change: c, Err: r.err})
	}
	return failures, nil
}

// isThere reports that the route of c is already as wished, and puts it right if it is ours but different.
func (t *Table) isThere(c route.Change) (bool, error) {
	have, err := t.Read()
	if err != nil {
		return false, err
	}
	e, ok := have[c.Prefix]
	if !ok || e.Unreachable() != c.New.Unreachable() {
		return false, nil
	}
	if e.Equal(*c.New) {
		return true, nil
	}
	refused, err := t.sock.batch([][]byte{newRoute(c.Prefix, *c.New, unix.NLM_F_REPLACE)})
	return len(refused) == 0, err
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
	m := make([]byte, unix.SizeofNlMsghdr+size)
	native.PutUint16(m[4:], typ)
	native.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if typ == unix.RTM_GETADDR {
		m[unix.SizeofNlMsghdr] = unix.AF_INET
	}
	return finish(m)
}

// LinkName is the name of an interface, or "" when it is gone.
func LinkName(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return i.Name
}
