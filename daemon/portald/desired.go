// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/link"
)

// overlaps reports every portal net that shares addresses with this node's or the cluster's pods, or with a subnet that
// the host is attached to: such a net would hide real machines behind services. Each report names both.
func overlaps(nets []netip.Prefix, n node.Node, host []link.HostPrefix) error {
	var errs []error
	for _, net := range nets {
		report := func(p netip.Prefix, what string) {
			if net.Overlaps(p) {
				errs = append(errs, fmt.Errorf("--portal-net: %s overlaps %s %s", net, what, p))
			}
		}
		for _, p := range n.PodSubnets {
			report(p, "the pod subnet")
		}
		for _, p := range n.ClusterPrefixes {
			if !slices.Contains(n.PodSubnets, p) {
				report(p, "the cluster's pod prefix")
			}
		}
		for _, h := range host {
			if !h.Addr.IsLinkLocalUnicast() && !slices.Contains(n.PodSubnets, h.Prefix) {
				report(h.Prefix, fmt.Sprintf("the host subnet of %s,", h.Link))
			}
		}
	}
	return errors.Join(errs...)
}

// admit leaves out the Services whose cluster addresses do not come from the portal nets, and says which and why.
func admit(s service.Snapshot, nets []netip.Prefix) (service.Snapshot, []error) {
	var problems []error
	out := service.Snapshot{Services: maps.Clone(s.Services), Endpoints: s.Endpoints}
	names := slices.SortedFunc(maps.Keys(s.Services), func(a, b service.Name) int { return cmp.Compare(a.String(), b.String()) })
	for _, name := range names {
		for _, vip := range s.Services[name].ClusterIPs {
			if !slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(vip) }) {
				problems = append(problems, fmt.Errorf("service %s: %s is outside --portal-net=%s", name, vip, join(nets)))
				delete(out.Services, name)
				break
			}
		}
	}
	return out, problems
}

func join(nets []netip.Prefix) string {
	s := ""
	for i, p := range nets {
		if i > 0 {
			s += ","
		}
		s += p.String()
	}
	return s
}

// nodeAddr chooses the address by which the node's own traffic finds the proxy: the first of the node file's that the
// host has, else one on the uplink, else any but a pod bridge's. ok is false when the host has none of the family.
func nodeAddr(v4 bool, n node.Node, host []link.HostPrefix, uplink string) (addr netip.Addr, ok bool) {
	var have []link.HostPrefix
	for _, h := range host {
		if h.Addr.Is4() == v4 && !h.Addr.IsLinkLocalUnicast() {
			have = append(have, h)
		}
	}
	for _, want := range n.Addresses {
		if slices.ContainsFunc(have, func(h link.HostPrefix) bool { return h.Addr == want }) {
			return want, true
		}
	}
	rank := func(h link.HostPrefix) int {
		_, pods := n.Owns(h.Addr)
		switch {
		case h.Link == uplink:
			return 0
		case !pods:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(have, func(a, b link.HostPrefix) int { return cmp.Compare(rank(a), rank(b)) })
	if len(have) == 0 {
		return netip.Addr{}, false
	}
	return have[0].Addr, true
}

// compute makes the Table of the node.
func compute(s service.Snapshot, n node.Node, nets []netip.Prefix) portal.Table {
	t := portal.Table{Portals: map[portal.Key]portal.Portal{}, Nets: nets}
	for name, svc := range s.Services {
		for _, port := range svc.Ports {
			pn := service.PortName{Name: name, Port: port.Name}
			for _, vip := range svc.ClusterIPs {
				p := portal.Portal{Service: pn, Affinity: svc.Affinity}
				for _, e := range s.Endpoints[pn] {
					if e.Ready && e.Addr.Addr().Is4() == vip.Is4() {
						p.Endpoints = append(p.Endpoints, e.Addr)
					}
				}
				slices.SortFunc(p.Endpoints, netip.AddrPort.Compare)
				t.Portals[portal.Key{Addr: vip, Protocol: port.Protocol, Port: port.Port}] = p
			}
		}
	}
	return t
}
