// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
)

// Event is something that others did to the kernel's state. Our own changes cause none.
type Event struct {
	Gone     netip.Prefix // a route of ours that somebody removed or replaced
	Topology bool         // a link, an address or a gateway of the host's changed
	Routes   bool         // routes of ours may have gone with it, without a word
	Link     int          // those through this link may have, if it is not 0
	// Forwarding says that the namespace or a link began or ceased to forward.
	Forwarding bool
	Lost       bool // events were lost: anything may have changed
}

// Watch opens the event stream in the calling thread's namespace. Run it once.
func (t *Table) Watch() (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	// An os.File rests in the runtime's poller: no thread waits, and Close wakes the reader.
	w := &Watch{file: os.NewFile(uintptr(fd), "rtnetlink"), own: t.sock.Port(), up: map[int32]bool{}}
	wire.GrowBuffers(fd)
	if err := errors.Join(w.ignoreOwn(fd), w.join(fd)); err != nil {
		return nil, errors.Join(fmt.Errorf("watch routes: %w", err), w.Close())
	}
	links, err := t.links()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch routes: read links: %w", err), w.Close())
	}
	for index := range links {
		w.up[int32(index)] = true
	}
	return w, nil
}

// Watch is an open event stream.
type Watch struct {
	file *os.File
	own  uint32
	up   map[int32]bool // the links that were up last: routes go with one that goes down
	// unsure says that events were lost, so that up is not all.
	unsure bool
}

// Close ends the stream.
func (w *Watch) Close() error { return w.file.Close() }

func (w *Watch) join(fd int) error {
	groups := uint32(0)
	for _, g := range []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEXTHOP, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_NETCONF,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_NETCONF,
	} {
		groups |= 1 << (g - 1)
	}
	return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
}

// ignoreOwn has the kernel drop notifications of our own requests: loading 100,000 routes must not wake the reader.
func (w *Watch) ignoreOwn(fd int) error {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 4}, // nlmsg_pid, loaded in network order
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap(w.own), SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 20},
	})
	if err != nil {
		return err
	}
	prog := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		prog[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
}

// swap is v in the other byte order, on a machine where they differ.
func swap(v uint32) uint32 {
	var b [4]byte
	wire.Native.PutUint32(b[:], v)
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// Run hands events to f until ctx ends or Close is called.
func (w *Watch) Run(ctx context.Context, f func(Event)) error {
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	buf := make([]byte, wire.RecvSize)
	for {
		n, err := w.file.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			w.unsure = true
			f(Event{Lost: true})
			continue
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watch routes: %w", err)
		}
		if err := wire.Each(buf[:n], func(h wire.Header, body []byte) error { w.event(h, body, f); return nil }); err != nil {
			return fmt.Errorf("watch routes: %w", err)
		}
	}
}

func (w *Watch) event(h wire.Header, body []byte, f func(Event)) {
	switch h.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) >= unix.SizeofIfInfomsg {
			f(w.link(h, body))
		}
	case unix.RTM_NEWADDR:
		f(Event{Topology: true})
	case unix.RTM_DELADDR: // with the last one of a link go its routes
		if len(body) >= unix.SizeofIfAddrmsg {
			f(Event{Topology: true, Link: int(wire.Native.Uint32(body[4:]))})
		}
	case wire.NewNexthop, wire.DelNexthop: // with an object go its routes, without a word
		if wire.IsOurNexthop(body) {
			f(Event{Topology: true, Routes: true})
		}
	case unix.RTM_NEWNETCONF:
		f(Event{Forwarding: true})
	case unix.RTM_DELROUTE, unix.RTM_NEWROUTE:
		s, ok := wire.ParseRoute(body)
		switch {
		case !ok:
		case s.Ours() && h.Type == unix.RTM_DELROUTE:
			f(Event{Gone: s.Prefix})
		case s.Ours():
		case s.Metric == s.WantMetric() && h.Flags&unix.NLM_F_REPLACE != 0: // a stranger's route in the place of ours
			f(Event{Gone: s.Prefix})
		case bytes.IndexByte(hostProtocols, s.Protocol) >= 0 && leads(s):
			f(Event{Topology: true})
		}
	}
}

// link notes whether a link is up. A pod's comes and goes often, and bears no route while it is not up.
func (w *Watch) link(h wire.Header, body []byte) Event {
	index, up := int32(wire.Native.Uint32(body[4:])), h.Type == unix.RTM_NEWLINK && isUp(body)
	was := w.up[index] || w.unsure
	if up {
		w.up[index] = true
	} else {
		delete(w.up, index)
	}
	e := Event{Topology: true}
	if was && !up {
		e.Link = int(index)
	}
	return e
}
