// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// check compares everything that ADD made with what is there and names the first difference.
func check(c *cni.Call) error {
	conf, _, err := parse(c)
	if err != nil {
		return err
	}
	if c.Net.PrevResult == nil {
		return cni.Errorf(cni.CodeInvalidConfig, "prevResult: missing")
	}
	if err := complete(&conf); err != nil {
		return err
	}
	ns, err := openPod(c.Netns)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // a handle
	host, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer host.Close()
	want, err := expected(c, conf, host)
	if err != nil {
		return err
	}
	have, err := observeNode(host, want)
	if err != nil {
		return err
	}
	if err := ns.Here(func() error { return observePod(&have, want) }); err != nil {
		return err
	}
	if err := attach.Verify(want, have); err != nil {
		return cni.Errorf(cni.CodeCheckFailed, "%w", err)
	}
	return nil
}

// expected is the attachment that the previous result and the configuration speak of, its lease included.
func expected(c *cni.Call, conf podnet.Config, host *rtnl.Conn) (attach.Attachment, error) {
	fail := func(format string, args ...any) (attach.Attachment, error) {
		return attach.Attachment{}, cni.Errorf(cni.CodeCheckFailed, format, args...)
	}
	link, ips, ok := c.Net.PrevResult.Pod(c.IfName)
	if !ok {
		return fail("prevResult: has no interface %s in a sandbox", c.IfName)
	}
	mac, err := attach.ParseMAC(link.MAC)
	if err != nil {
		return fail("prevResult: interface %s: %w", c.IfName, err)
	}
	addrs, err := recall(c, conf, ips)
	if err != nil {
		return fail("%w", err)
	}
	bridge, err := host.Link(conf.Bridge)
	if errors.Is(err, rtnl.ErrNoLink) {
		return fail("bridge %s: is gone", conf.Bridge)
	}
	if err != nil {
		return attach.Attachment{}, err
	}
	mtu := conf.MTU
	if mtu == 0 {
		mtu = bridge.MTU
	}
	if link.MTU != 0 {
		mtu = link.MTU
	}
	if conf.Delegate != "" { // whose routes are known from the result alone
		conf.DefaultRoute = false
		for _, r := range c.Net.PrevResult.Routes {
			conf.Routes = append(conf.Routes, toRoute(r))
		}
	}
	return attach.Decide(spec(c, conf, mtu, addrs, &mac)), nil
}

// recall finds out what the addresses of the previous result are to this network, and that they are held.
func recall(c *cni.Call, conf podnet.Config, ips []cni.IP) ([]attach.Addr, error) {
	if conf.Delegate != "" {
		if _, err := c.Delegate(conf.Delegate, "CHECK"); err != nil {
			return nil, err
		}
		return delegated(conf, ips), nil
	}
	given := make([]netip.Addr, len(ips))
	for i, ip := range ips {
		given[i] = ip.Address.Addr()
	}
	of, addrs, n := pool.Assign(conf.Sets, given), make([]attach.Addr, len(conf.Sets)), 0
	for i, a := range given {
		if of[i] >= 0 {
			r, _ := conf.Sets[of[i]].Subnet(a)
			addrs[of[i]] = attach.Addr{Addr: a, Subnet: r.Subnet, Gateway: r.Gateway}
			n++
		}
	}
	if n != len(conf.Sets) {
		return nil, fmt.Errorf("prevResult: has %d addresses of this network's ranges, want %d", n, len(conf.Sets))
	}
	if conf.NoAddress {
		return nil, nil
	}
	return addrs, holds(c, conf, addrs)
}

// holds compares the lease with the addresses of the result.
func holds(c *cni.Call, conf podnet.Config, addrs []attach.Addr) error {
	l, err := lease.At(conf.LeaseDir + "/" + c.Net.Name).Find(record(c).Owner)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lease: %s of container %s holds no address", c.IfName, c.ContainerID)
	}
	if err != nil {
		return leaseError(err)
	}
	defer l.Close()
	var hint []netip.Addr
	for _, a := range addrs {
		hint = append(hint, a.Addr)
	}
	held, err := l.Holds(hint)
	if err != nil {
		return err
	}
	for _, a := range hint {
		if !slices.Contains(held, a) {
			return fmt.Errorf("lease: %s is not held by this container", a)
		}
	}
	return nil
}

// observeNode reads the node's side of an attachment.
func observeNode(host *rtnl.Conn, want attach.Attachment) (attach.Attachment, error) {
	var have attach.Attachment
	bridge, err := host.Link(want.Bridge.Name)
	if err != nil && !errors.Is(err, rtnl.ErrNoLink) {
		return have, err
	}
	if bridge.Up && bridge.Kind == "bridge" {
		have.Bridge = attach.Bridge{Name: bridge.Name, MAC: bridge.MAC, MTU: bridge.MTU, Promisc: bridge.Promisc}
		have.Bridge.Filtering = bridge.Filtering
		if err := observeGateway(host, bridge, want.Bridge, &have.Bridge); err != nil {
			return have, err
		}
	}
	port, err := host.Link(want.Port.Name)
	if err != nil && !errors.Is(err, rtnl.ErrNoLink) {
		return have, err
	}
	have.Port = attach.Port{Name: port.Name, Alias: port.Alias, MAC: port.MAC, MTU: port.MTU, Hairpin: port.Hairpin, Isolated: port.Isolated, Blocked: port.Blocked, Down: !port.Up}
	if port.Master != 0 && port.Master == bridge.Index {
		have.Port.Bridge = bridge.Name
		if len(want.Port.VLANs) > 0 {
			if have.Port.VLANs, err = host.VLANs(port.Index); err != nil {
				return have, err
			}
		}
	}
	if !want.Port.Guard.Equal(attach.Guard{}) {
		g, err := guard.Dial()
		if err != nil {
			return have, err
		}
		defer g.Close()
		have.Port.Guard, err = g.Get(want.Port.Name)
		if errors.Is(err, guard.ErrChanged) {
			return have, cni.Errorf(cni.CodeCheckFailed, "port %s: %w", want.Port.Name, err)
		}
		if err != nil {
			return have, err
		}
	}
	have.Settings, err = observe(want.Settings)
	return have, err
}

// observeGateway reads the interface that has the gateway addresses: the bridge, or the node's leg in the pods' VLAN.
func observeGateway(host *rtnl.Conn, bridge rtnl.Link, want attach.Bridge, have *attach.Bridge) (err error) {
	gateway := bridge
	if leg := want.Leg; leg != nil {
		var port rtnl.Link
		gateway, err = host.Link(leg.Name)
		if err == nil {
			port, err = host.Link(leg.Port.Name)
		}
		if errors.Is(err, rtnl.ErrNoLink) {
			return nil
		}
		if err != nil {
			return err
		}
		have.Leg = &attach.Leg{Name: leg.Name, MAC: gateway.MAC}
		if port.Up && port.Master == bridge.Index {
			have.Leg.Port.Bridge = bridge.Name
		}
		if have.Leg.Port.VLANs, err = host.VLANs(port.Index); err != nil {
			return err
		}
	}
	have.Addrs, err = host.Addrs(gateway.Index, 0)
	return err
}

// observePod reads the pod's side; it runs in the pod's namespace.
func observePod(have *attach.Attachment, want attach.Attachment) error {
	pod, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer pod.Close()
	eth0, err := pod.Link(want.Pod.Name)
	if errors.Is(err, rtnl.ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	have.Pod = attach.Pod{Name: eth0.Name, MAC: eth0.MAC, MTU: eth0.MTU, Down: !eth0.Up}
	if have.Pod.Addrs, err = pod.Addrs(eth0.Index, 0); err != nil {
		return err
	}
	routes, err := pod.Routes(0, eth0.Index)
	if err != nil {
		return err
	}
	for _, r := range routes {
		have.Pod.Routes = append(have.Pod.Routes, r.Route)
	}
	have.Pod.Settings, err = observe(want.Pod.Settings)
	return err
}

// observe reads settings, leaving out what this kernel does not have.
func observe(want []attach.Setting) (have []attach.Setting, err error) {
	for _, s := range want {
		v, err := sysctl.Get(s.Name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		have = append(have, attach.Setting{Name: s.Name, Value: v})
	}
	return have, nil
}
