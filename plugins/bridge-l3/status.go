// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/edge/cni"
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
	if err := statusOfSettings(attach.NodeSettings(v4, v6, true)); err != nil {
		return err
	}
	return statusOfBridge(c.Net.Name, host, bridge, conf)
}

func statusOfSettings(want []attach.Setting) error {
	for _, s := range want {
		if v, err := sysctl.Get(s.Name); err == nil && v != s.Value {
			return cni.Errorf(cni.CodeLimitedConnectivity, "%s is %s: pods cannot leave this node until it is %s", s.Name, v, s.Value)
		}
	}
	return nil
}

// gatewayOf is the interface that has the gateway addresses.
func gatewayOf(conf podnet.Config) string {
	if conf.VLAN.Access == 0 {
		return conf.Bridge
	}
	return attach.LegName(conf.Bridge, conf.VLAN.Access)
}

// statusOfBridge wants the bridge to serve the pods that are there. Where there is none the next ADD mends it.
func statusOfBridge(network string, host *rtnl.Conn, bridge rtnl.Link, conf podnet.Config) error {
	links, err := host.Links()
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	pods := slices.ContainsFunc(links, func(l rtnl.Link) bool {
		return l.Master == bridge.Index && strings.HasPrefix(l.Alias, attach.AliasPrefix(network))
	})
	if !pods {
		return nil
	}
	if !bridge.Up {
		return cni.Errorf(cni.CodeLimitedConnectivity, "bridge %s is down, and its pods reach nobody: ip link set %s up", bridge.Name, bridge.Name)
	}
	i := slices.IndexFunc(links, func(l rtnl.Link) bool { return l.Name == gatewayOf(conf) })
	if i < 0 {
		return cni.Errorf(cni.CodeLimitedConnectivity, "the gateway's interface %s is gone: pods cannot leave this node until the next ADD", gatewayOf(conf))
	}
	have, err := host.Addrs(links[i].Index, 0)
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	for _, set := range conf.Sets {
		if !slices.ContainsFunc(have, func(p netip.Prefix) bool {
			return slices.ContainsFunc(set, func(r pool.Range) bool { return r.Gateway == p.Addr() })
		}) {
			return cni.Errorf(cni.CodeLimitedConnectivity, "%s has lost the gateway address %s: ip addr add %s/%d dev %s", links[i].Name, set[0].Gateway, set[0].Gateway, set[0].Subnet.Bits(), links[i].Name)
		}
	}
	v4, v6 := conf.Families()
	return statusOfSettings(attach.Forwarding(gatewayOf(conf), v4, v6))
}

// statusOfPools wants a free address in every pool. It may have to look for one that has been forgotten: a runtime does
// not try an ADD where STATUS fails.
func statusOfPools(c *cni.Call, conf podnet.Config, host *rtnl.Conn) error {
	store := openStore(conf, c.Net.Name)
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
				return fmt.Errorf("the pool %s is full: %d of %d addresses in use%s", set[0].Subnet, used, size, store.Where(set))
			}
			if _, err := reclaimAll(host, store, conf, c.Net.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
