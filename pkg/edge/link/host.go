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

// HostPrefix is one address of this namespace with its interface and on-link prefix.
type HostPrefix struct {
	Link   string
	Addr   netip.Addr
	Prefix netip.Prefix // masked
}

// HostPrefixes lists every global and link-local address of the namespace, loopback left out.
func HostPrefixes() ([]HostPrefix, error) {
	links, err := retry(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			names[l.Attrs().Index] = l.Attrs().Name
		}
	}
	addrs, err := retry(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []HostPrefix
	for _, a := range addrs {
		name, ok := names[a.LinkIndex]
		if !ok || a.IPNet == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		ones, _ := a.Mask.Size()
		out = append(out, HostPrefix{Link: name, Addr: ip, Prefix: netip.PrefixFrom(ip, ones).Masked()})
	}
	return out, nil
}

// Uplink is the interface of the default route.
type Uplink struct {
	Name string
	MTU  int
}

// IsUp reports whether a link is there and set up, whatever its carrier.
func IsUp(name string) (bool, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("link %s: %w", name, err)
	}
	return l.Attrs().Flags&net.FlagUp != 0, nil
}

// DefaultUplink finds the interface that the lowest-metric default route of the family uses (unix.AF_INET or AF_INET6).
// ok is false when there is no default route.
func DefaultUplink(family int) (u Uplink, ok bool, err error) {
	best, err := retry(func() (*netlink.Route, error) { return defaultRoute(family) })
	if err != nil {
		return Uplink{}, false, fmt.Errorf("list routes: %w", err)
	}
	if best == nil {
		return Uplink{}, false, nil
	}
	index := best.LinkIndex
	if index == 0 {
		index = best.MultiPath[0].LinkIndex
	}
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return Uplink{}, false, fmt.Errorf("link %d of the default route: %w", index, err)
	}
	return Uplink{Name: l.Attrs().Name, MTU: l.Attrs().MTU}, true, nil
}

// defaultRoute is the default route with the lowest metric, or nil. The kernel tells the shortest prefixes of a table
// first, in both families, so that a table of 100,000 routes is not read to its end.
func defaultRoute(family int) (best *netlink.Route, err error) {
	through := false
	err = netlink.RouteListFilteredIter(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		if through = !isDefault(r); through {
			return false
		}
		if (r.LinkIndex != 0 || len(r.MultiPath) > 0) && (best == nil || r.Priority < best.Priority) {
			best = &r
		}
		return true
	})
	if through && errors.Is(err, netlink.ErrDumpInterrupted) { // what changed lies beyond
		err = nil
	}
	return best, err
}

// SourceFor asks the kernel which address and interface it would use to reach dst.
func SourceFor(dst netip.Addr) (src netip.Addr, ifName string, err error) {
	routes, err := netlink.RouteGet(dst.AsSlice())
	if err != nil {
		return netip.Addr{}, "", fmt.Errorf("route to %s: %w", dst, err)
	}
	if len(routes) == 0 || routes[0].Src == nil {
		return netip.Addr{}, "", fmt.Errorf("route to %s: no source address", dst)
	}
	src, _ = netip.AddrFromSlice(routes[0].Src)
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return netip.Addr{}, "", fmt.Errorf("link %d of the route to %s: %w", routes[0].LinkIndex, dst, err)
	}
	return src.Unmap(), l.Attrs().Name, nil
}

func isDefault(r netlink.Route) bool {
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

// retry repeats a dump that the kernel says was interrupted by a concurrent change (NLM_F_DUMP_INTR): its result
// may lack entries, so it is never used. It gives up after ten tries, which only a storm of changes can cause.
func retry[T any](dump func() (T, error)) (T, error) {
	for range 9 {
		v, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
	return dump()
}
