// SPDX-License-Identifier: Apache-2.0

package look

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/edge/lease"
)

// StoreDir is where a network's leases lie.
func StoreDir(n view.Network) string { return filepath.Join(cmp.Or(n.DataDir, mark.LeaseDir), n.Name) }

// Store is a network's leases.
func Store(n view.Network) *lease.Store { return lease.At(StoreDir(n)) }

// leases are those of the networks whose addresses bridge-l3 gives, and what host-local still holds of them: under their own
// names, and under names that they may have had, as ADD sees it.
func leases(h view.Host) ([]view.Lease, error) {
	names, err := lease.Networks(mark.HostLocalDir)
	errs := []error{err}
	var out []view.Lease
	for _, n := range h.Networks {
		if !n.Leases() {
			continue
		}
		some, err := Leases(n, filepath.Join(mark.HostLocalDir, n.Name))
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.Name, err))
		}
		out = append(out, some...)
		for _, name := range names {
			if slices.ContainsFunc(h.Networks, func(n view.Network) bool { return n.Name == name }) {
				continue
			}
			others, err := hostLocals(n.Name, filepath.Join(mark.HostLocalDir, name))
			errs = append(errs, err)
			for _, l := range others {
				if within(h, n, l.Addr) && !slices.ContainsFunc(some, func(x view.Lease) bool { return x.Addr == l.Addr }) {
					out = append(out, l)
				}
			}
		}
	}
	return out, errors.Join(errs...)
}

// within says that the network may give the address.
func within(h view.Host, n view.Network, a netip.Addr) bool {
	subnets := n.Subnets
	if len(subnets) == 0 {
		subnets = h.PodSubnets()
	}
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// hostLocals are what host-local holds in a directory of its own, as leases of a network of ours.
func hostLocals(network, dir string) (out []view.Lease, err error) {
	foreign, err := lease.At(dir).Foreign()
	for _, f := range foreign {
		path := filepath.Join(dir, f.Addr.String())
		out = append(out, view.Lease{Network: network, Addr: f.Addr, Container: f.ContainerID, IfName: cmp.Or(f.IfName, "eth0"), Since: f.Since, HostLocal: path})
	}
	return out, err
}

// Leases are one network's. An address that only host-local holds, in this directory of its own, is among them.
func Leases(n view.Network, hostLocal string) ([]view.Lease, error) {
	var out []view.Lease
	entries, err := Store(n).List()
	seen := map[netip.Addr]bool{}
	for _, e := range entries {
		l := view.Lease{Network: n.Name, Addr: e.Addr, Container: e.ContainerID, IfName: e.IfName, Pod: e.Pod, Since: e.Since}
		if e.HostLocal {
			l.HostLocal, l.IfName = filepath.Join(StoreDir(n), e.Addr.String()), cmp.Or(e.IfName, "eth0")
		}
		seen[e.Addr] = true
		out = append(out, l)
	}
	foreign, ferr := hostLocals(n.Name, hostLocal)
	for _, l := range foreign {
		if !seen[l.Addr] {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b view.Lease) int { return a.Addr.Compare(b.Addr) })
	return out, errors.Join(err, ferr)
}
