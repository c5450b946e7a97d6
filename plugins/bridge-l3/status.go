// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// status says whether an ADD would work, and whether the pods that are there are reachable.
func status(c *cni.Call) error {
	conf, _, err := parse(c)
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	if err := complete(&conf); err != nil {
		return err
	}
	if conf.Delegate != "" {
		if _, err := c.Delegate(conf.Delegate, "STATUS"); err != nil {
			return err
		}
	}
	host, err := rtnl.Dial()
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	defer host.Close()
	if err := statusOfPools(c, conf, host); err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	bridge, err := host.Link(conf.Bridge)
	if errors.Is(err, rtnl.ErrNoLink) {
		return nil // the first ADD makes it, and turns forwarding on
	}
	if err != nil || bridge.Kind != "bridge" {
		return cni.Errorf(cni.CodeNotAvailable, "bridge: %s is not a bridge", conf.Bridge)
	}
	if conf.VLAN.Filtering() && !bridge.KnowsVLANs {
		return cni.Errorf(cni.CodeNotAvailable, "vlan: %w", rtnl.ErrNoVLANs)
	}
	if !conf.Gateway {
		return nil
	}
	v4, v6 := conf.Families()
	if conf.Delegate != "" { // whose families the bridge tells, once a pod is there
		addrs, err := host.Addrs(bridge.Index, 0)
		if err != nil {
			return cni.Errorf(cni.CodeNotAvailable, "%w", err)
		}
		for _, a := range addrs {
			v4, v6 = v4 || a.Addr().Is4(), v6 || a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast()
		}
	}
	for _, s := range attach.NodeSettings(v4, v6, true) {
		if v, err := sysctl.Get(s.Name); err == nil && v != s.Value {
			return cni.Errorf(cni.CodeLimitedConnectivity, "%s is %s: pods cannot leave this node until it is %s", s.Name, v, s.Value)
		}
	}
	return nil
}

// statusOfPools wants a free address in every pool. It may have to look for one that has been forgotten: a runtime does
// not try an ADD where STATUS fails.
func statusOfPools(c *cni.Call, conf podnet.Config, host *rtnl.Conn) error {
	store := lease.At(conf.LeaseDir + "/" + c.Net.Name)
	for _, set := range conf.Sets {
		for reclaimed := false; ; reclaimed = true {
			used, err := store.Count(func(a netip.Addr) bool { _, ok := set.Find(a); return ok })
			if err != nil {
				return err
			}
			size := set.Size()
			if used < size {
				break
			}
			if reclaimed {
				return fmt.Errorf("the pool %s is full: %d of %d addresses in use", set[0].Subnet, used, size)
			}
			if _, err := reclaim(host, store, c.Net.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
