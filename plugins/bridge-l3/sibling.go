// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

// A network that is given another name, or another ipam.dataDir, has leases in a store that no verb of it would open any more.
// They hold addresses of its subnets all the same, and their pods are deleted under today's name.

// sibling is the store of another network of ours.
type sibling struct {
	*lease.Store
	network string
}

func siblings(conf podnet.Config, network string) (out []sibling, err error) {
	var errs []error
	for _, dir := range ourDirs(conf) {
		names, err := lease.Networks(dir)
		errs = append(errs, err)
		for _, n := range names {
			if dir != conf.LeaseDir || n != network {
				out = append(out, sibling{lease.At(dir + "/" + n), n})
			}
		}
	}
	return out, errors.Join(errs...)
}

// reclaimAll is reclaim for the network and for those that hold addresses of its pools.
func reclaimAll(host *rtnl.Conn, store *lease.Store, conf podnet.Config, network string) (int, error) {
	n, err := reclaim(host, store, network, nil)
	more, serr := reclaimSiblings(host, conf, network, nil)
	return n + more, errors.Join(err, serr)
}

func reclaimSiblings(host *rtnl.Conn, conf podnet.Config, network string, keep []cni.Attachment) (total int, err error) {
	all, err := siblings(conf, network)
	errs := []error{err}
	for _, s := range all {
		held, err := s.Count(func(a netip.Addr) bool {
			return slices.ContainsFunc(conf.Sets, func(set pool.Set) bool { _, ok := set.Find(a); return ok })
		})
		if err != nil || held == 0 {
			continue
		}
		n, err := reclaim(host, s.Store, s.network, keep)
		total, errs = total+n, append(errs, err)
	}
	return total, errors.Join(errs...)
}

// dropRenamed ends an attachment of which another store of ours has the lease. It has to be proved that the network had that
// name, and is not another one with a living pod: the pod had an address of the lease, or it has no link any more. As for
// reclaim, what portal has on record keeps the address.
func dropRenamed(host *rtnl.Conn, conf podnet.Config, network string, o lease.Owner, had []netip.Addr) error {
	all, err := siblings(conf, network)
	errs := []error{err}
	for _, s := range all {
		errs = append(errs, s.drop(host, o, had))
	}
	return errors.Join(errs...)
}

func (s sibling) drop(host *rtnl.Conn, o lease.Owner, had []netip.Addr) error {
	held, err := s.Find(o)
	if err != nil { // there is none, or its own network works on it
		return nil //nolint:nilerr // see above
	}
	defer held.Close()
	addrs, err := held.Holds(had)
	if err != nil {
		return err
	}
	port := attach.PortName(o.ContainerID, o.IfName)
	proved := slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(had, a) })
	if proved {
		if err := removePort(host, s.network, port, held); err != nil && !errors.Is(err, rtnl.ErrNoLink) {
			return err
		}
	}
	if _, err := host.Link(port); !errors.Is(err, rtnl.ErrNoLink) || !proved && held.Port != port || hasPorts(s.network, o) {
		return nil //nolint:nilerr // it has one, or nobody knows
	}
	if err := removePort(host, s.network, port, held); err != nil && !errors.Is(err, rtnl.ErrNoLink) { // what binds it
		return err
	}
	return held.Release(addrs)
}
