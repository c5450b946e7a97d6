// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
)

// Metrics of our routes. Nobody else is known to use these numbers, so that even an identical prefix from another
// daemon stands beside ours. The sink is worse than any connected route: it only catches what the bridge does not hold.
const (
	Metric     = 103
	metricSink = 1<<31 - 1
)

// newRoute appends an RTM_NEWROUTE for one entry; flags say whether it must not exist (EXCL) or is replaced. A route
// refers to the nexthop object id, or, where that is 0, names its next hops itself.
func newRoute(b []byte, prefix netip.Prefix, e route.Entry, id uint32, flags uint16) []byte {
	at := len(b)
	b = routeHeader(b, unix.RTM_NEWROUTE, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|flags, prefix, e)
	switch {
	case e.Unreachable():
	case id != 0:
		b = attrUint32(b, rtaNHID, id)
	case len(e.Hops) == 1:
		b = attrUint32(b, unix.RTA_OIF, uint32(e.Hops[0].Link))
		b = attrGateway(b, prefix, e.Hops[0].Gateway)
	default:
		var hops []byte
		for _, h := range e.Hops {
			at := len(hops)
			hops = append(hops, make([]byte, unix.SizeofRtNexthop)...)
			hops[at+3] = kernelWeight(h)
			native.PutUint32(hops[at+4:], uint32(h.Link))
			hops = attrGateway(hops, prefix, h.Gateway)
			native.PutUint16(hops[at:], uint16(len(hops)-at))
		}
		b = attr(b, unix.RTA_MULTIPATH, hops)
	}
	return finish(b, at)
}

// delRoute appends the removal of our route for prefix whatever its next hops; the kernel matches protocol, metric, type
// and table.
func delRoute(b []byte, prefix netip.Prefix, e route.Entry) []byte {
	at := len(b)
	return finish(routeHeader(b, unix.RTM_DELROUTE, unix.NLM_F_REQUEST, prefix, e), at)
}

func routeHeader(b []byte, typ, flags uint16, prefix netip.Prefix, e route.Entry) []byte {
	metric, kind := uint32(Metric), byte(unix.RTN_UNICAST)
	if e.Unreachable() {
		metric, kind = metricSink, unix.RTN_UNREACHABLE
	}
	b = nlHeader(b, typ, flags)
	b = append(b, family(prefix.Addr()), byte(prefix.Bits()), 0, 0, unix.RT_TABLE_MAIN, mark.RouteRouted, unix.RT_SCOPE_UNIVERSE, kind, 0, 0, 0, 0)
	if prefix.Bits() > 0 {
		b = attrAddr(b, unix.RTA_DST, prefix.Addr())
	}
	return attrUint32(b, unix.RTA_PRIORITY, metric)
}

// nlHeader appends a message header; length and sequence are filled in later.
func nlHeader(b []byte, typ, flags uint16) []byte {
	b = native.AppendUint32(b, 0)
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// dumpRoutes asks for the routes of one family and protocol in the main table.
func dumpRoutes(family, protocol byte) []byte {
	b := nlHeader(nil, unix.RTM_GETROUTE, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, family, 0, 0, 0, unix.RT_TABLE_MAIN, protocol, 0, 0, 0, 0, 0, 0)
	return finish(b, 0)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// seen is a route as the kernel tells it.
type seen struct {
	prefix   netip.Prefix
	entry    route.Entry
	nexthop  uint32 // nexthop object; entry may be empty then
	protocol byte
	metric   uint32
	sink     bool // unreachable
}

// ours reports that the route carries our protocol and one of our metrics.
func (s seen) ours() bool { return s.protocol == mark.RouteRouted && s.metric == s.wantMetric() }

func (s seen) wantMetric() uint32 {
	if s.sink {
		return metricSink
	}
	return Metric
}

// parseRoute reads an RTM_NEWROUTE or RTM_DELROUTE; ok is false for what is not a route of the main table.
func parseRoute(body []byte) (s seen, ok bool) {
	if len(body) < unix.SizeofRtMsg || body[4] != unix.RT_TABLE_MAIN {
		return seen{}, false
	}
	s.protocol, s.sink = body[5], body[7] == unix.RTN_UNREACHABLE
	var dst netip.Addr
	switch body[0] {
	case unix.AF_INET:
		dst = netip.IPv4Unspecified()
	case unix.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return seen{}, false
	}
	var hop route.NextHop
	var hops []route.NextHop
	eachAttr(body[unix.SizeofRtMsg:], func(typ uint16, val []byte) {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(val)
		case unix.RTA_PRIORITY:
			s.metric = native.Uint32(val)
		case unix.RTA_OIF:
			hop.Link = int(native.Uint32(val))
		case unix.RTA_GATEWAY:
			hop.Gateway, _ = netip.AddrFromSlice(val)
		case unix.RTA_VIA:
			hop.Gateway = parseVia(val)
		case unix.RTA_MULTIPATH:
			hops = parseHops(val)
		case rtaNHID:
			s.nexthop = native.Uint32(val)
		}
	})
	s.prefix = netip.PrefixFrom(dst, int(body[1]))
	switch {
	case hops != nil:
		s.entry = route.NewEntry(hops...)
	case body[7] == unix.RTN_UNICAST:
		s.entry = route.NewEntry(hop)
	}
	return s, s.prefix.IsValid()
}

func parseHops(val []byte) []route.NextHop {
	var out []route.NextHop
	for len(val) >= unix.SizeofRtNexthop {
		size := int(native.Uint16(val))
		if size < unix.SizeofRtNexthop || size > len(val) {
			break
		}
		h := route.NextHop{Link: int(native.Uint32(val[4:])), Weight: int(val[3]) + 1}
		a := attrs(val[unix.SizeofRtNexthop:size])
		if gw, ok := netip.AddrFromSlice(a[unix.RTA_GATEWAY]); ok {
			h.Gateway = gw
		} else {
			h.Gateway = parseVia(a[unix.RTA_VIA])
		}
		out = append(out, h)
		val = val[min(align(size), len(val)):]
	}
	return out
}

func attr(m []byte, typ uint16, val []byte) []byte {
	m = native.AppendUint16(m, uint16(unix.SizeofRtAttr+len(val)))
	m = native.AppendUint16(m, typ)
	m = append(m, val...)
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}

func attrUint32(m []byte, typ uint16, v uint32) []byte {
	m = native.AppendUint16(m, unix.SizeofRtAttr+4)
	m = native.AppendUint16(m, typ)
	return native.AppendUint32(m, v)
}

func attrAddr(m []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		a4 := a.As4()
		return attr(m, typ, a4[:])
	}
	a16 := a.As16()
	return attr(m, typ, a16[:])
}

// attrGateway names the gateway of a route that has no nexthop object. IPv4 through IPv6 (RFC 8950) is a struct rtvia.
func attrGateway(m []byte, prefix netip.Prefix, gw netip.Addr) []byte {
	if prefix.Addr().Is4() == gw.Is4() {
		return attrAddr(m, unix.RTA_GATEWAY, gw)
	}
	a16 := gw.As16()
	return attr(m, unix.RTA_VIA, append(native.AppendUint16(nil, unix.AF_INET6), a16[:]...))
}

// parseVia reads a struct rtvia (linux/rtnetlink.h): a family and an address of it.
func parseVia(val []byte) netip.Addr {
	if len(val) < 2 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(val[2:])
	return a
}

// kernelWeight is a hop's share as the kernel counts it: from 0 for one part.
func kernelWeight(h route.NextHop) byte { return byte(max(1, h.Weight) - 1) }

// finish writes the length into the header of the message that begins at.
func finish(m []byte, at int) []byte {
	native.PutUint32(m[at:], uint32(len(m)-at))
	return m
}

func eachAttr(data []byte, f func(typ uint16, val []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(native.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}
		f(native.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[unix.SizeofRtAttr:size])
		data = data[min(align(size), len(data)):]
	}
}

func attrs(data []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	eachAttr(data, func(typ uint16, val []byte) { out[typ] = val })
	return out
}
