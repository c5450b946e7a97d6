// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EnsureReachable gives the node a way to addresses of dst that exist nowhere, so that its own packets to them get as far as
// the rules that translate them instead of ending in ENETUNREACH: a route on the link that has the address src. It does
// nothing, and reports false, when some route covers them already, be it the default route or another.
func EnsureReachable(dst netip.Prefix, src netip.Addr, protocol int) (added bool, err error) {
	_, err = netlink.RouteGet(dst.Masked().Addr().Next().AsSlice())
	if err == nil {
		return false, nil
	} else if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
		return false, fmt.Errorf("route to %s: %w", dst, err)
	}
	have, err := HostPrefixes()
	if err != nil {
		return false, err
	}
	for _, h := range have {
		if h.Addr != src {
			continue
		}
		l, err := netlink.LinkByName(h.Link)
		if err != nil {
			return false, fmt.Errorf("route to %s: link %s: %w", dst, h.Link, err)
		}
		r := netlink.Route{
			Dst:       &net.IPNet{IP: dst.Masked().Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())},
			LinkIndex: l.Attrs().Index, Src: src.AsSlice(),
			Protocol: netlink.RouteProtocol(protocol), Scope: netlink.SCOPE_LINK,
		}
		if err := netlink.RouteAdd(&r); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, fmt.Errorf("add route to %s on %s: %w", dst, h.Link, err)
		}
		return true, nil
	}
	return false, fmt.Errorf("route to %s: no link has the address %s", dst, src)
}

// RemoveRoutes deletes every route that carries the protocol number, in both families.
func RemoveRoutes(protocol int) error {
	routes, err := retry(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: netlink.RouteProtocol(protocol)}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete route to %s: %w", r.Dst, err)
		}
	}
	return nil
}
