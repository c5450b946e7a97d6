// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
)

// defaultMetric6 is IP6_RT_PRIO_USER (linux/ipv6_route.h).
const defaultMetric6 = 1024

// nextHopOnLink is RTNH_F_ONLINK (linux/rtnetlink.h): the gateway is on the link whatever the addresses say.
const nextHopOnLink = 4

func ifaddr(family, bits, scope uint8, index int) []byte {
	return []byte{family, bits, 0, scope, byte(index), byte(index >> 8), byte(index >> 16), byte(index >> 24)}
}

// AddAddr gives an interface an address. For IPv6 the kernel does not look for duplicates first, which takes a second,
// unless dad is set. added is false when it is there already.
func (c *Conn) AddAddr(index int, p netip.Prefix, dad bool) (added bool, err error) {
	a := p.Addr()
	m := newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifaddr(family(a), uint8(p.Bits()), 0, index))
	m.addr(unix.IFA_LOCAL, a)
	m.addr(unix.IFA_ADDRESS, a)
	if a.Is4() && p.Bits() < 31 {
		m.attr(unix.IFA_BROADCAST, broadcast(p))
	}
	if a.Is6() && !dad {
		m.u32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
	err = c.do(m)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("add address %s: %w", p, err)
	}
	return true, nil
}

// DelAddr takes an address away; one that is not there is no error. Both attributes are said, because the kernel compares
// the length only with IFA_ADDRESS (inet_rtm_deladdr), and would take away the same address with another length.
func (c *Conn) DelAddr(index int, p netip.Prefix) error {
	m := newMessage(unix.RTM_DELADDR, 0, ifaddr(family(p.Addr()), uint8(p.Bits()), 0, index))
	m.addr(unix.IFA_LOCAL, p.Addr())
	m.addr(unix.IFA_ADDRESS, p.Addr())
	if err := c.do(m); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s: %w", p, err)
	}
	return nil
}

// Addrs lists an interface's addresses of one family (unix.AF_INET, unix.AF_INET6; unix.AF_UNSPEC: both).
func (c *Conn) Addrs(index int, family uint8) ([]netip.Prefix, error) {
	all, err := c.dump(newMessage(unix.RTM_GETADDR, 0, ifaddr(family, 0, 0, index)))
	if err != nil {
		return nil, fmt.Errorf("list addresses of interface %d: %w", index, err)
	}
	var out []netip.Prefix
	for _, b := range all {
		if len(b) < unix.SizeofIfAddrmsg || int(uint32Of(b[4:])) != index {
			continue
		}
		if p, ok := parseAddr(b); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// parseAddr reads an address of the interface itself; IPv6 sends only IFA_ADDRESS where there is no peer.
func parseAddr(b []byte) (netip.Prefix, bool) {
	var local, address netip.Addr
	for kind, v := range attrs(b[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			local = addrOf(v)
		case unix.IFA_ADDRESS:
			address = addrOf(v)
		}
	}
	if !local.IsValid() {
		local = address
	}
	return netip.PrefixFrom(local, int(b[1])), local.IsValid()
}

// AddRoute adds a route of an interface; the very same one is no error.
func (c *Conn) AddRoute(index int, r attach.Route) error {
	if err := c.do(routeMessage(index, r)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route %s: %w", r, err)
	}
	return nil
}

func routeMessage(index int, r attach.Route) *message {
	table, scope := uint32(unix.RT_TABLE_MAIN), uint8(unix.RT_SCOPE_UNIVERSE)
	if !r.Via.IsValid() && r.Dst.Addr().Is4() {
		scope = unix.RT_SCOPE_LINK
	}
	if r.Table != nil {
		table = uint32(*r.Table)
	}
	if r.Scope != nil {
		scope = uint8(*r.Scope)
	}
	short := uint8(unix.RT_TABLE_UNSPEC)
	if table < 256 {
		short = uint8(table)
	}
	var flags byte
	if r.OnLink {
		flags = nextHopOnLink
	}
	m := newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, []byte{family(r.Dst.Addr()), uint8(r.Dst.Bits()), 0, 0,
		short, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, flags, 0, 0, 0})
	if r.Dst.Bits() > 0 {
		m.addr(unix.RTA_DST, r.Dst.Addr())
	}
	if r.Via.IsValid() {
		m.addr(unix.RTA_GATEWAY, r.Via)
	}
	m.u32(unix.RTA_OIF, uint32(index))
	m.u32(unix.RTA_TABLE, table)
	if r.Priority != 0 {
		m.u32(unix.RTA_PRIORITY, uint32(r.Priority))
	}
	if r.MTU != 0 || r.AdvMSS != 0 {
		m.nest(unix.RTA_METRICS, func() {
			if r.MTU != 0 {
				m.u32(unix.RTAX_MTU, uint32(r.MTU))
			}
			if r.AdvMSS != 0 {
				m.u32(unix.RTAX_ADVMSS, uint32(r.AdvMSS))
			}
		})
	}
	return m
}

// RouteEntry is a route of the kernel with what a plugin does not ask for.
type RouteEntry struct {
	attach.Route
	Index    int   // of the interface
	Nexthops []int // a multipath route's interfaces, instead of Index
}

// Routes lists the unicast routes of the namespace that leave by one interface, or by any (index 0), in every table.
// What AddRoute chooses by itself is given as it is asked for: main table and natural scope nil, IPv6's metric 1024 zero.
func (c *Conn) Routes(family uint8, index int) ([]RouteEntry, error) {
	m := newMessage(unix.RTM_GETROUTE, 0, []byte{family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	if index != 0 {
		m.u32(unix.RTA_OIF, uint32(index))
	}
	all, err := c.dump(m)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []RouteEntry
	for _, b := range all {
		if r, ok := parseRoute(b); ok && (index == 0 || r.Index == index) {
			out = append(out, r)
		}
	}
	return out, nil
}

func parseRoute(b []byte) (RouteEntry, bool) {
	if len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST {
		return RouteEntry{}, false
	}
	var r RouteEntry
	any := netip.IPv6Unspecified()
	if b[0] == unix.AF_INET {
		any = netip.IPv4Unspecified()
	}
	dst, table := any, int(b[4])
	for kind, v := range attrs(b[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			dst = addrOf(v)
		case unix.RTA_GATEWAY:
			r.Via = addrOf(v)
		case unix.RTA_OIF:
			r.Index = int(uint32Of(v))
		case unix.RTA_TABLE:
			table = int(uint32Of(v))
		case unix.RTA_PRIORITY:
			r.Priority = int(uint32Of(v))
		case unix.RTA_METRICS:
			for kind, v := range attrs(v) {
				switch kind {
				case unix.RTAX_MTU:
					r.MTU = int(uint32Of(v))
				case unix.RTAX_ADVMSS:
					r.AdvMSS = int(uint32Of(v))
				}
			}
		case unix.RTA_MULTIPATH:
			r.Nexthops = hops(v)
		}
	}
	if b[0] == unix.AF_INET6 && r.Priority == defaultMetric6 {
		r.Priority = 0
	}
	r.OnLink = b[8]&nextHopOnLink != 0
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	if table != unix.RT_TABLE_MAIN {
		r.Table = &table
	}
	natural := unix.RT_SCOPE_UNIVERSE
	if !r.Via.IsValid() && dst.Is4() {
		natural = unix.RT_SCOPE_LINK
	}
	if scope := int(b[6]); scope != natural {
		r.Scope = &scope
	}
	return r, true
}

// hops reads the interface of each struct rtnexthop.
func hops(b []byte) (out []int) {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(b[0]) | int(b[1])<<8
		if length < unix.SizeofRtNexthop || length > len(b) {
			break
		}
		out = append(out, int(uint32Of(b[4:])))
		b = b[min(align(length), len(b)):]
	}
	return out
}

// Uplink is the interface of the default route with the lowest metric, IPv4 before IPv6; ErrNoLink when there is none.
func (c *Conn) Uplink() (Link, error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := c.Routes(family, 0)
		if err != nil {
			return Link{}, err
		}
		routes = slices.DeleteFunc(routes, func(r RouteEntry) bool { return r.Dst.Bits() != 0 || r.Table != nil })
		slices.SortStableFunc(routes, func(a, b RouteEntry) int { return a.Priority - b.Priority })
		for _, r := range routes {
			if r.Index == 0 && len(r.Nexthops) > 0 {
				r.Index = r.Nexthops[0]
			}
			if r.Index != 0 {
				return c.LinkAt(r.Index)
			}
		}
	}
	return Link{}, fmt.Errorf("default route: %w", ErrNoLink)
}

// ways are the kinds of interface that may lead out of a node; hardware has none.
var ways = []string{"", "bond", "team", "vlan", "macvlan", "ipvlan", "veth"}

// LowestMTU is what every interface takes that is up and may be given the default route, at most Ethernet's own (RFC 894).
func (c *Conn) LowestMTU() (int, error) {
	links, err := c.Links()
	mtu := 1500
	for _, l := range links {
		if l.Up && l.Master == 0 && l.Name != "lo" && slices.Contains(ways, l.Kind) {
			mtu = min(mtu, l.MTU)
		}
	}
	return mtu, err
}

// AllAddrs lists the addresses of every interface, by its index.
func (c *Conn) AllAddrs() (map[int][]netip.Prefix, error) {
	all, err := c.dump(newMessage(unix.RTM_GETADDR, 0, ifaddr(unix.AF_UNSPEC, 0, 0, 0)))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[int][]netip.Prefix{}
	for _, b := range all {
		if len(b) < unix.SizeofIfAddrmsg {
			continue
		}
		if p, ok := parseAddr(b); ok {
			index := int(uint32Of(b[4:]))
			out[index] = append(out[index], p)
		}
	}
	return out, nil
}

// broadcast is the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) []byte {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}
