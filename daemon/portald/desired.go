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
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/engine/proxy"
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

// desired is what the node should answer, and how.
type desired struct {
	table        portal.Table // everything
	kernel, user portal.Table // by who answers
	tuning       map[service.Name]tuning.Settings
	services     int
	problems     []error // what is not in force, and why
}

// decide splits what the node should answer among the data planes, with the wishes of each service and all problems.
func decide(s service.Snapshot, t portal.Table, mode string) desired {
	d := desired{table: t, tuning: map[service.Name]tuning.Settings{}, services: len(s.Services)}
	for _, r := range t.Refused {
		d.problems = append(d.problems, errors.New(r.String()))
	}
	for name, svc := range s.Services {
		if len(svc.Annotations) == 0 {
			continue
		}
		tune, err := tuning.Parse(svc.Annotations)
		for _, e := range flatten(err) {
			d.problems = append(d.problems, fmt.Errorf("service %s: %w", name, e))
		}
		if tune != tuning.Default() {
			d.tuning[name] = tune
		}
	}
	d.split(mode)
	return d
}

// split gives each portal to the data plane that its service or else the node's mode asks for.
func (d *desired) split(mode string) {
	var stray []portal.Key
	d.kernel, d.user = d.table, d.table
	d.kernel.Portals, d.user.Portals = map[portal.Key]portal.Portal{}, map[portal.Key]portal.Portal{}
	for key, p := range d.table.Portals {
		switch {
		case cmp.Or(d.tuning[p.Service.Name].Mode, mode) == modeNFTables:
			d.kernel.Portals[key] = p
		case proxy.Supports(key.Protocol):
			d.user.Portals[key] = p
		default:
			d.problems = append(d.problems, fmt.Errorf("%s of %s: userspace mode cannot carry it", key, p.Service))
			stray = append(stray, key)
		}
	}
	if len(stray) > 0 {
		d.table.Portals = maps.Clone(d.table.Portals)
		for _, key := range stray {
			delete(d.table.Portals, key)
		}
	}
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
