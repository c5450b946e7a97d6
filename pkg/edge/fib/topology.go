// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
)

// hostProtocols mark the routes that an administrator or the network gave the host (linux/rtnetlink.h). Routes of other
// routing daemons are none of them: two daemons must not lean on each other.
var hostProtocols = []byte{unix.RTPROT_BOOT, unix.RTPROT_STATIC, unix.RTPROT_RA, unix.RTPROT_DHCP}

// Topology returns what the namespace is connected to: addresses of links that are up and have carrier, and the host's
// own routes.
func (t *Table) Topology() (route.Topology, error) {
	var topo route.Topology
	names, err := t.links()
	if err != nil {
		return topo, fmt.Errorf("read links: %w", err)
	}
	topo.Links = map[string]int{}
	for index, name := range names {
		topo.Links[name] = index
	}
	again := func() { topo.Self, topo.OnLink = nil, nil }
	err = t.sock.Dump(wire.DumpAll(unix.RTM_GETADDR, unix.SizeofIfAddrmsg), again, func(_ uint16, body []byte) error {
		self, onLink, ok := parseAddr(body)
		if !ok {
			return nil
		}
		if self.Is6() && self.IsLinkLocalUnicast() {
			return nil
		}
		topo.Self = append(topo.Self, self)
		if names[onLink.Link] != "" && !self.IsLoopback() {
			topo.OnLink = append(topo.OnLink, onLink)
		}
		return nil
	})
	if err != nil {
		return topo, fmt.Errorf("read addresses: %w", err)
	}
	gateways, links, err := t.gateways(names)
	if err != nil {
		return topo, fmt.Errorf("read gateways: %w", err)
	}
	topo.Gateways, topo.OnLink = gateways, append(topo.OnLink, links...)
	return topo, nil
}

// links are the names of the links that are up and have carrier, by index.
func (t *Table) links() (map[int]string, error) {
	up := map[int]string{}
	err := t.sock.Dump(wire.DumpAll(unix.RTM_GETLINK, unix.SizeofIfInfomsg), func() { clear(up) }, func(_ uint16, body []byte) error {
		if len(body) < unix.SizeofIfInfomsg {
			return nil
		}
		if !isUp(body) {
			return nil
		}
		name := wire.Attrs(body[unix.SizeofIfInfomsg:])[unix.IFLA_IFNAME]
		up[int(wire.Native.Uint32(body[4:]))] = string(bytes.TrimRight(name, "\x00"))
		return nil
	})
	return up, err
}

// isUp reads the flags of an RTM_NEWLINK.
func isUp(body []byte) bool {
	const up = unix.IFF_UP | unix.IFF_LOWER_UP
	return wire.Native.Uint32(body[8:])&up == up
}

// parseAddr reads an RTM_NEWADDR: the address itself, and what it makes reachable on its link.
func parseAddr(body []byte) (self netip.Addr, onLink route.OnLink, ok bool) {
	if len(body) < unix.SizeofIfAddrmsg || body[0] != unix.AF_INET && body[0] != unix.AF_INET6 {
		return self, onLink, false
	}
	a := wire.Attrs(body[unix.SizeofIfAddrmsg:])
	far, ok := netip.AddrFromSlice(a[unix.IFA_ADDRESS]) // the far end of a point-to-point link
	if !ok {
		return self, onLink, false
	}
	if self, ok = netip.AddrFromSlice(a[unix.IFA_LOCAL]); !ok { // IPv6 leaves it out where both are the same
		self = far
	}
	return self, route.OnLink{Prefix: netip.PrefixFrom(far, int(body[1])).Masked(), Link: int(wire.Native.Uint32(body[4:]))}, true
}

// gateways are the host's own routes: those through a gateway, and those to a link. Of two for the same prefix the one
// with the lower metric counts, of several gateways of one the first whose link is up.
func (t *Table) gateways(up map[int]string) ([]route.Gateway, []route.OnLink, error) {
	var all []wire.Seen
	objects := map[uint32]wire.Nexthop{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range hostProtocols {
			before := len(all)
			err := t.sock.Dump(wire.DumpRoutes(family, protocol), func() { all = all[:before] }, func(_ uint16, body []byte) error {
				if s, ok := wire.ParseRoute(body); ok && s.Protocol == protocol && leads(s) {
					all = append(all, s)
				}
				return nil
			})
			if err != nil {
				return nil, nil, err
			}
		}
	}
	if slices.ContainsFunc(all, byObject) {
		err := t.sock.Dump(wire.DumpNexthops(), func() { clear(objects) }, func(_ uint16, body []byte) error {
			if n, ok := wire.ParseAnyNexthop(body); ok {
				objects[n.ID] = n
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	best := map[netip.Prefix]wire.Seen{}
	for _, s := range all {
		hop, ok := firstUp(s, objects, up)
		if b, other := best[s.Prefix]; ok && (!other || s.Metric < b.Metric) {
			s.Entry = route.Entry{Hops: []route.NextHop{hop}}
			best[s.Prefix] = s
		}
	}
	var gateways []route.Gateway
	var links []route.OnLink
	for p, s := range best {
		if hop := s.Entry.Hops[0]; hop.Gateway.IsValid() {
			gateways = append(gateways, route.Gateway{Prefix: p, Hop: hop})
		} else {
			links = append(links, route.OnLink{Prefix: p, Link: hop.Link})
		}
	}
	slices.SortFunc(gateways, func(a, b route.Gateway) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(links, func(a, b route.OnLink) int { return a.Prefix.Compare(b.Prefix) })
	return gateways, links, nil
}

// leads reports that a route is one to somewhere. Prefixes that are on every link say nothing.
func leads(s wire.Seen) bool {
	return (len(s.Entry.Hops) > 0 || s.Nexthop != 0) && !s.Prefix.Addr().IsLinkLocalUnicast() && !s.Prefix.Addr().IsMulticast()
}

// byObject reports that the kernel names only the object that has the next hop: with net.ipv4.nexthop_compat_mode=0.
func byObject(s wire.Seen) bool {
	return s.Nexthop != 0 && (len(s.Entry.Hops) == 0 || s.Entry.Hops[0].Link == 0)
}

// firstUp is the first of a route's hops whose link is up.
func firstUp(s wire.Seen, objects map[uint32]wire.Nexthop, up map[int]string) (route.NextHop, bool) {
	hops := s.Entry.Hops
	if byObject(s) {
		n := objects[s.Nexthop]
		hops = []route.NextHop{n.Hop}
		for _, m := range n.Members {
			hops = append(hops, objects[m.ID].Hop)
		}
	}
	for _, h := range hops {
		if up[h.Link] != "" {
			h.Weight = 0
			return h, true
		}
	}
	return route.NextHop{}, false
}
