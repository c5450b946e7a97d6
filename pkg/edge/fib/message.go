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

// newRoute is an RTM_NEWROUTE for one entry; flags say whether it must not exist (EXCL) or is replaced.
func newRoute(prefix netip.Prefix, e route.Entry, flags uint16) []byte {
	m := routeHeader(unix.RTM_NEWROUTE, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|flags, prefix, e)
	switch len(e.Hops) {
	case 0:
	case 1:
		m = attrUint32(m, unix.RTA_OIF, uint32(e.Hops[0].Link))
		m = attr(m, unix.RTA_GATEWAY, e.Hops[0].Gateway.AsSlice())
	default:
		var hops []byte
		for _, h := range e.Hops {
			at := len(hops)
			hops = append(hops, make([]byte, unix.SizeofRtNexthop)...)
			native.PutUint32(hops[at+4:], uint32(h.Link))
			hops = attr(hops, unix.RTA_GATEWAY, h.Gateway.AsSlice())
			native.PutUint16(hops[at:], uint16(len(hops)-at))
		}
		m = attr(m, unix.RTA_MULTIPATH, hops)
	}
	return finish(m)
}

// delRoute removes our route for prefix whatever its next hops; the kernel matches protocol, metric, type and table.
func delRoute(prefix netip.Prefix, e route.Entry) []byte {
	return finish(routeHeader(unix.RTM_DELROUTE, unix.NLM_F_REQUEST, prefix, e))
}

func routeHeader(typ, flags uint16, prefix netip.Prefix, e route.Entry) []byte {
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg, 72)
	native.PutUint16(m[4:], typ)
	native.PutUint16(m[6:], flags)
	r := m[unix.SizeofNlMsghdr:]
	r[0] = unix.AF_INET
	r[1] = byte(prefix.Bits())
	r[4] = unix.RT_TABLE_MAIN
	r[5] = mark.RouteRouted
	r[6] = unix.RT_SCOPE_UNIVERSE
	r[7] = unix.RTN_UNICAST
	metric := uint32(Metric)
	if e.Unreachable() {
		r[7], metric = unix.RTN_UNREACHABLE, metricSink
	}
	if prefix.Bits() > 0 {
		m = attr(m, unix.RTA_DST, prefix.Addr().AsSlice())
	}
	return attrUint32(m, unix.RTA_PRIORITY, metric)
}

func dumpRoutes() []byte {
	m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
	native.PutUint16(m[4:], unix.RTM_GETROUTE)
	native.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	m[unix.SizeofNlMsghdr] = unix.AF_INET
	m[unix.SizeofNlMsghdr+4] = unix.RT_TABLE_MAIN
	m[unix.SizeofNlMsghdr+5] = mark.RouteRouted
	return finish(m)
}

// seen is a route as the kernel tells it.
type seen struct {
	prefix   netip.Prefix
	entry    route.Entry
	protocol byte
	metric   uint32
}

// ours reports that the route carries our protocol and one of our metrics.
func (s seen) ours() bool { return s.protocol == mark.RouteRouted && s.metric == s.wantMetric() }

func (s seen) wantMetric() uint32 {
	if s.entry.Unreachable() {
		return metricSink
	}
	return Metric
}

// parseRoute reads an RTM_NEWROUTE or RTM_DELROUTE; ok is false for what is not an IPv4 route of the main table.
func parseRoute(body []byte) (s seen, ok bool) {
	if len(body) < unix.SizeofRtMsg || body[0] != unix.AF_INET || body[4] != unix.RT_TABLE_MAIN {
		return seen{}, false
	}
	s.protocol = body[5]
	dst := netip.IPv4Unspecified()
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
		case unix.RTA_MULTIPATH:
			hops = parseHops(val)
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
		h := route.NextHop{Link: int(native.Uint32(val[4:]))}
		if gw, ok := netip.AddrFromSlice(attrs(val[unix.SizeofRtNexthop:size])[unix.RTA_GATEWAY]); ok {
			h.Gateway = gw
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

// finish writes the length into the header.
func finish(m []byte) []byte {
	native.PutUint32(m, uint32(len(m)))
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
