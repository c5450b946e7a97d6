// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch hears when the kernel of one namespace adds or removes the route of one prefix: no polling, so that both the
// time and the two cores are the daemons' own.
type watch struct {
	f      *os.File
	events chan change
}

type change struct {
	there bool
	at    time.Time
}

func watchRoute(h *host, prefix netip.Prefix) (*watch, error) {
	var fd int
	err := h.ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_IPV4_ROUTE - 1)})
	})
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	w := &watch{f: os.NewFile(uintptr(fd), "netlink"), events: make(chan change, 100)}
	go w.run(prefix)
	return w, nil
}

func (w *watch) close() {
	if w != nil {
		_ = w.f.Close()
	}
}

func (w *watch) run(prefix netip.Prefix) {
	defer close(w.events)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		for _, there := range routeChanges(buf[:n], prefix) {
			w.events <- change{there, now}
		}
	}
}

// routeChanges reads a netlink datagram (rtnetlink(7)): true for each time that a route of prefix came, false for each
// that it went.
func routeChanges(data []byte, prefix netip.Prefix) (out []bool) {
	native := binary.NativeEndian
	for len(data) >= unix.SizeofNlMsghdr {
		size, typ := int(native.Uint32(data)), native.Uint16(data[4:])
		if size < unix.SizeofNlMsghdr || size > len(data) {
			return out
		}
		body := data[unix.SizeofNlMsghdr:size]
		data = data[min((size+3)&^3, len(data)):]
		if typ != unix.RTM_NEWROUTE && typ != unix.RTM_DELROUTE || len(body) < unix.SizeofRtMsg {
			continue
		}
		bits, attrs := int(body[1]), body[unix.SizeofRtMsg:]
		for len(attrs) >= unix.SizeofRtAttr {
			l := int(native.Uint16(attrs))
			if l < unix.SizeofRtAttr || l > len(attrs) {
				break
			}
			if a, ok := netip.AddrFromSlice(attrs[unix.SizeofRtAttr:l]); ok && native.Uint16(attrs[2:]) == unix.RTA_DST && netip.PrefixFrom(a, bits) == prefix {
				out = append(out, typ == unix.RTM_NEWROUTE)
			}
			attrs = attrs[min((l+3)&^3, len(attrs)):]
		}
	}
	return out
}

// until waits for the route to come or to go, and returns when it did.
func (w *watch) until(there bool, most time.Duration) (time.Time, error) {
	late := time.After(most)
	for {
		select {
		case c, ok := <-w.events:
			if !ok {
				return time.Time{}, errors.New("the watch ended")
			}
			if c.there == there {
				return c.at, nil
			}
		case <-late:
			return time.Time{}, fmt.Errorf("not within %s: route there: %t", most, there)
		}
	}
}
