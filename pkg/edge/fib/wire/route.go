// SPDX-License-Identifier: Apache-2.0

package wire

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

// NewRoute appends an RTM_NEWROUTE for one entry; flags say whether it must not exist (EXCL) or is replaced. A route
// refers to the nexthop object id, or, where that is 0, names its next hops itself.
func NewRoute(b []byte, prefix netip.Prefix, e route.Entry, id uint32, flags uint16) []byte {
	at := len(b)
	b = routeHeader(b, unix.RTM_NEWROUTE, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|flags, prefix, e)
	switch {
	case e.Unreachable():
	case id != 0:
		b = AttrUint32(b, rtaNHID, id)
	case len(e.Hops) == 1:
		b = AttrUint32(b, unix.RTA_OIF, uint32(e.Hops[0].Link))
		b = attrGateway(b, prefix, e.Hops[0].Gateway)
	default:
		var hops []byte
		for _, h := range e.Hops {
			at := len(hops)
			hops = append(hops, make([]byte, unix.SizeofRtNexthop)...)
			hops[at+3] = Weight(h)
			Native.PutUint32(hops[at+4:], uint32(h.Link))
			hops = attrGateway(hops, prefix, h.Gateway)
			Native.PutUint16(hops[at:], uint16(len(hops)-at))
		}
		b = Attr(b, unix.RTA_MULTIPATH, hops)
	}
	return Finish(b, at)
}

// DelRoute appends the removal of our route for prefix whatever its next hops; the kernel matches protocol, metric, type
// and table.
func DelRoute(b []byte, prefix netip.Prefix, e route.Entry) []byte {
	at := len(b)
	return Finish(routeHeader(b, unix.RTM_DELROUTE, unix.NLM_F_REQUEST, prefix, e), at)
}

func routeHeader(b []byte, typ, flags uint16, prefix netip.Prefix, e route.Entry) []byte {
	metric, kind := uint32(Metric), byte(unix.RTN_UNICAST)
	if e.Unreachable() {
		metric, kind = metricSink, unix.RTN_UNREACHABLE
	}
	b = Start(b, typ, flags)
	b = append(b, Family(prefix.Addr()), byte(prefix.Bits()), 0, 0, unix.RT_TABLE_MAIN, mark.RouteRouted, unix.RT_SCOPE_UNIVERSE, kind, 0, 0, 0, 0)
	if prefix.Bits() > 0 {
		b = AttrAddr(b, unix.RTA_DST, prefix.Addr())
	}
	return AttrUint32(b, unix.RTA_PRIORITY, metric)
}

// DumpRoutes asks for the routes of one family and protocol in the main table.
func DumpRoutes(family, protocol byte) []byte {
	b := Start(nil, unix.RTM_GETROUTE, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, family, 0, 0, 0, unix.RT_TABLE_MAIN, protocol, 0, 0, 0, 0, 0, 0)
	return Finish(b, 0)
}

// Seen is a route as the kernel tells it.
type Seen struct {
	Prefix   netip.Prefix
	Entry    route.Entry
	Nexthop  uint32 // nexthop object; Entry may be empty then
	Protocol byte
	Metric   uint32
	Sink     bool // unreachable
}

// Ours reports that the route carries our protocol and one of our metrics.
func (s Seen) Ours() bool { return s.Protocol == mark.RouteRouted && s.Metric == s.WantMetric() }

// WantMetric is the one that a route of ours of this kind has.
func (s Seen) WantMetric() uint32 {
	if s.Sink {
		return metricSink
	}
	return Metric
}

// ParseRoute reads an RTM_NEWROUTE or RTM_DELROUTE; ok is false for what is not a route of the main table.
func ParseRoute(body []byte) (s Seen, ok bool) {
	if len(body) < unix.SizeofRtMsg || body[4] != unix.RT_TABLE_MAIN {
		return Seen{}, false
	}
	s.Protocol, s.Sink = body[5], body[7] == unix.RTN_UNREACHABLE
	var dst netip.Addr
	switch body[0] {
	case unix.AF_INET:
		dst = netip.IPv4Unspecified()
	case unix.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return Seen{}, false
	}
	var hop route.NextHop
	var hops []route.NextHop
	eachAttr(body[unix.SizeofRtMsg:], func(typ uint16, val []byte) {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(val)
		case unix.RTA_PRIORITY:
			s.Metric = number(val)
		case unix.RTA_OIF:
			hop.Link = int(number(val))
		case unix.RTA_GATEWAY:
			hop.Gateway, _ = netip.AddrFromSlice(val)
		case unix.RTA_VIA:
			hop.Gateway = parseVia(val)
		case unix.RTA_MULTIPATH:
			hops = parseHops(val)
		case rtaNHID:
			s.Nexthop = number(val)
		}
	})
	s.Prefix = netip.PrefixFrom(dst, int(body[1]))
	switch {
	case hops != nil:
		s.Entry = route.NewEntry(hops...)
	case body[7] == unix.RTN_UNICAST:
		s.Entry = route.NewEntry(hop)
	}
	return s, s.Prefix.IsValid()
}

func parseHops(val []byte) []route.NextHop {
	var out []route.NextHop
	for len(val) >= unix.SizeofRtNexthop {
		size := int(Native.Uint16(val))
		if size < unix.SizeofRtNexthop || size > len(val) {
			break
		}
		h := route.NextHop{Link: int(Native.Uint32(val[4:])), Weight: int(val[3]) + 1}
		a := Attrs(val[unix.SizeofRtNexthop:size])
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

// attrGateway names the gateway of a route that has no nexthop object. IPv4 through IPv6 (RFC 8950) is a struct rtvia.
func attrGateway(m []byte, prefix netip.Prefix, gw netip.Addr) []byte {
	if prefix.Addr().Is4() == gw.Is4() {
		return AttrAddr(m, unix.RTA_GATEWAY, gw)
	}
	a16 := gw.As16()
	return Attr(m, unix.RTA_VIA, append(Native.AppendUint16(nil, unix.AF_INET6), a16[:]...))
}

// parseVia reads a struct rtvia (linux/rtnetlink.h): a family and an address of it.
func parseVia(val []byte) netip.Addr {
	if len(val) < 2 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(val[2:])
	return a
}
