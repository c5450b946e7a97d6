// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// Routes lists the main table of the calling thread's namespace, both families, for people to look at.
func Routes() ([]view.Route, error) {
	links, err := retry(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	routes, err := retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	out := make([]view.Route, 0, len(routes))
	for _, r := range routes {
		v := view.Route{Dst: prefix(r.Dst, r.Family), Via: toAddr(r.Gw), Dev: names[r.LinkIndex], Metric: r.Priority, Protocol: int(r.Protocol)}
		switch r.Type {
		case unix.RTN_UNICAST:
		case unix.RTN_UNREACHABLE:
			v.Type, v.Dev = "unreachable", ""
		case unix.RTN_BLACKHOLE:
			v.Type, v.Dev = "blackhole", ""
		default:
			continue
		}
		for i, hop := range r.MultiPath {
			h := view.Hop{Via: toAddr(hop.Gw), Dev: names[hop.LinkIndex]}
			if i == 0 {
				v.Via, v.Dev = h.Via, h.Dev
			} else {
				v.More = append(v.More, h)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// prefix is everything of the family where n is nil.
func prefix(n *net.IPNet, family int) netip.Prefix {
	if n == nil {
		if family == unix.AF_INET6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(toAddr(n.IP), ones)
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// PutBack adds a route to the main table as its daemon had made it: with that protocol number and metric, by one gateway
// or several. One that is there already is no error.
func PutBack(dst netip.Prefix, via []netip.Addr, protocol, metric int) error {
	r := &netlink.Route{
		Dst:      &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())},
		Protocol: netlink.RouteProtocol(protocol), Priority: metric,
	}
	if len(via) == 1 {
		r.Gw = via[0].AsSlice()
	} else {
		for _, a := range via {
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{Gw: a.AsSlice()})
		}
	}
	if err := netlink.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add route to %s: %w", dst, err)
	}
	return nil
}
