// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/core/subnet"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/lease"
)

// openStore is the network's leases, and where else addresses of its subnets may be held: by every other network of ours, as
// bridges that are no gateway may be shared too, and by host-local's; of these only by the one of this name where nobody
// routes the pods.
func openStore(conf podnet.Config, network string) *lease.Store {
	s := lease.At(conf.LeaseDir + "/" + network)
	if conf.NoAddress || conf.Delegate != "" {
		return s
	}
	s.Around = ourDirs(conf)
	switch {
	case slices.Contains(s.Around, hostLocalDir):
	case conf.Gateway:
		s.Around = append(s.Around, hostLocalDir)
	default:
		s.Beside = []string{hostLocalDir + "/" + network}
	}
	return s
}

// ourDirs are where leases of ours may be.
func ourDirs(conf podnet.Config) []string {
	dirs := []string{conf.LeaseDir, defaultLeaseDir}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// defaultLeaseDir is where a network's leases are that has had no ipam.dataDir before.
var defaultLeaseDir = mark.LeaseDir

// claim takes the asked-for addresses, and of each set that nothing was asked of the next free one. An attachment that an
// earlier, interrupted ADD left keeps what it holds where that fits.
func (j *job) claim() error {
	if j.conf.Delegate != "" {
		return j.delegate()
	}
	var had []netip.Addr
	if !j.lease.Fresh {
		var err error
		if had, err = j.lease.Holds(nil); err != nil {
			return err
		}
	}
	chosen, err := pool.Choose(j.conf.Sets, j.ask.addrs, had)
	if err != nil {
		return cni.Errorf(cni.CodeInvalidConfig, "%w", err)
	}
	for i, a := range chosen {
		set := j.conf.Sets[i]
		if a.IsValid() {
			err = j.lease.Take(a)
		} else {
			a, err = j.next(set, i)
		}
		if err != nil {
			return leaseError(err)
		}
		r, _ := set.Subnet(a)
		j.addrs = append(j.addrs, attach.Addr{Addr: a, Subnet: r.Subnet, Gateway: r.Gateway})
	}
	for _, a := range had {
		if !slices.Contains(j.held(), a) {
			if err := j.lease.Drop(a); err != nil {
				return err
			}
		}
	}
	return nil
}

// next claims a free address of the set, if need be one of a pod that has ended without a DEL.
func (j *job) next(set pool.Set, index int) (netip.Addr, error) {
	a, err := j.lease.Next(set, index)
	if !errors.Is(err, lease.ErrFull) {
		return a, err
	}
	n, rerr := reclaimAll(j.host, j.store, j.conf, j.call.Net.Name)
	if n == 0 {
		return a, errors.Join(err, rerr)
	}
	return j.lease.Next(set, index)
}

// delegate lets another IPAM plugin choose. Its routes are the pod's; without any there is the default one.
func (j *job) delegate() error {
	r, err := j.call.Delegate(j.conf.Delegate, "ADD")
	if err != nil {
		return err
	}
	if len(r.IPs) == 0 {
		return cni.Errorf(cni.CodeInvalidConfig, "%s gave no address", j.conf.Delegate)
	}
	j.addrs = delegated(j.conf, r.IPs)
	for _, route := range r.Routes {
		j.conf.Routes = append(j.conf.Routes, toRoute(route))
		j.conf.DefaultRoute = j.conf.DefaultAsked
	}
	if j.dns.IsZero() {
		j.dns = r.DNS
	}
	return nil
}

// delegated turns the addresses that another plugin gave into ours. A bridge that is a gateway needs an address: the
// subnet's first where none is named.
func delegated(conf podnet.Config, ips []cni.IP) (out []attach.Addr) {
	for _, ip := range ips {
		a := attach.Addr{Addr: ip.Address.Addr(), Subnet: ip.Address.Masked(), Gateway: ip.Gateway}
		if conf.Gateway && !a.Gateway.IsValid() {
			a.Gateway = subnet.First(a.Subnet)
		}
		out = append(out, a)
	}
	return out
}

// giveBack undoes claim.
func (j *job) giveBack() error {
	var err error
	if j.conf.Delegate != "" {
		_, err = j.call.Delegate(j.conf.Delegate, "DEL")
	}
	return errors.Join(err, j.lease.Release(j.held()))
}

func (j *job) held() (out []netip.Addr) {
	for _, a := range j.addrs {
		out = append(out, a.Addr)
	}
	return out
}

func toRoute(r cni.Route) attach.Route {
	return attach.Route{Dst: r.Dst.Masked(), Via: r.GW, MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope}
}

func record(c *cni.Call) lease.Record {
	r := lease.Record{Owner: lease.Owner{ContainerID: c.ContainerID, IfName: c.IfName}}
	name, _ := c.EnvArg("K8S_POD_NAME")
	if ns, ok := c.EnvArg("K8S_POD_NAMESPACE"); ok && name != "" {
		name = ns + "/" + name
	}
	r.Pod = name
	return r
}

func prevAddrs(c *cni.Call) (out []netip.Addr) {
	if c.Net.PrevResult != nil {
		for _, ip := range c.Net.PrevResult.IPs {
			out = append(out, ip.Address.Addr())
		}
	}
	return out
}

// leaseError gives the store's errors their codes.
func leaseError(err error) error {
	var coded *cni.Error
	switch {
	case errors.As(err, &coded):
		return err
	case errors.Is(err, lease.ErrFull):
		return cni.Errorf(cni.CodeNoAddress, "%w", err)
	case errors.Is(err, lease.ErrTaken):
		return cni.Errorf(cni.CodeConflict, "%w", err)
	case errors.Is(err, lease.ErrTooLong):
		return cni.Errorf(cni.CodeInvalidEnvironment, "CNI_CONTAINERID: %w", err)
	case errors.Is(err, lease.ErrBusy):
		return cni.Errorf(cni.CodeTryAgainLater, "%w", err)
	}
	return fmt.Errorf("lease: %w", err)
}
