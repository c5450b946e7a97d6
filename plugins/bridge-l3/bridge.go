// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// ensureBridge makes the bridge when have is zero, and otherwise mends what is missing on it. Many first ADDs may do this
// at once: each message succeeds, or finds its work done.
func ensureBridge(host *rtnl.Conn, have rtnl.Link, want attach.Attachment, conf podnet.Config) (rtnl.Link, error) {
	made := false
	if have.Index == 0 {
		var err error
		if made, err = host.MakeBridge(want.Bridge); err != nil {
			return have, err
		}
		if made && want.Bridge.Leg == nil {
			if err := apply(want.Bridge.Fresh); err != nil {
				return have, err
			}
		}
		if have, err = host.Link(want.Bridge.Name); err != nil {
			return have, err
		}
	}
	if have.Kind != "bridge" {
		return have, cni.Errorf(cni.CodeInvalidConfig, "bridge: %s is not a bridge", want.Bridge.Name)
	}
	if !have.Up {
		if err := refuseAdverts(want.Bridge.Name); err != nil {
			return have, err
		}
	}
	if !have.Up || want.Bridge.Promisc && !have.Promisc {
		if err := host.Up(have.Index, want.Bridge.Promisc); err != nil {
			return have, err
		}
	}
	gateway, err := ensureVLAN(host, have, want)
	if err != nil {
		return have, err
	}
	for _, a := range want.Bridge.Addrs {
		if err := ensureGateway(host, gateway, a, conf); err != nil {
			return have, err
		}
	}
	return have, ensureSettings(want.Settings, made)
}

// refuseAdverts is for before an interface comes up: what it takes then it keeps.
func refuseAdverts(ifName string) error {
	s := attach.NoAdverts(ifName)
	_, err := sysctl.EnsureIfPresent(s.Name, s.Value)
	return err
}

// stranger refuses pod subnets of which a pod could get an address that another interface of the node than the gateway's has,
// or that has the gateway's own there. It is asked when the gateway address is not the node's yet.
func stranger(host *rtnl.Conn, gateway string, conf podnet.Config, subnets []netip.Prefix) error {
	if !conf.Gateway {
		return nil
	}
	all, err := host.AllAddrs()
	if err != nil {
		return err
	}
	pods := ranges(conf, subnets)
	for index, list := range all {
		for _, p := range list {
			i := slices.IndexFunc(pods, func(r pool.Range) bool { return r.Gateway == p.Addr() || r.Has(p.Addr()) })
			if i < 0 {
				continue
			}
			l, err := host.LinkAt(index)
			if errors.Is(err, rtnl.ErrNoLink) || err == nil && l.Name == gateway { // another first ADD is faster
				continue
			}
			return errors.Join(err, cni.Errorf(cni.CodeConflict, "subnet: %s holds %s, which is the node's own on %s: pods need a subnet of their own, or a range without it", pods[i].Subnet, p.Addr(), l.Name))
		}
	}
	return nil
}

// ranges are those of the subnets that pods get addresses of: all of a subnet where another plugin gives them.
func ranges(conf podnet.Config, subnets []netip.Prefix) (out []pool.Range) {
	if conf.Delegate != "" {
		for _, s := range subnets {
			if r, err := pool.NewRange(s, netip.Addr{}, netip.Addr{}, netip.Addr{}); err == nil {
				out = append(out, r)
			}
		}
		return out
	}
	for _, r := range slices.Concat(conf.Sets...) {
		if slices.Contains(subnets, r.Subnet) {
			out = append(out, r)
		}
	}
	return out
}

// ensureSettings makes the node's settings; a lack that matters is told once, when the bridge is made.
func ensureSettings(settings []attach.Setting, tell bool) error {
	for _, s := range settings {
		if s.Optional == "" {
			if err := sysctl.Ensure(s.Name, s.Value); err != nil {
				return err
			}
		} else if ok, err := sysctl.EnsureIfPresent(s.Name, s.Value); err != nil {
			return err
		} else if !ok && tell {
			fmt.Fprintf(os.Stderr, "bridge-l3: this kernel has no setting %s: %s\n", s.Name, s.Optional)
		}
	}
	return nil
}

// ensureVLAN makes the bridge keep VLANs apart where it must, and returns the interface that is to have the gateway
// addresses: the bridge, or the node's leg in the pods' VLAN, which is made when it is not there. Its port comes up last,
// so one that is up is whole.
func ensureVLAN(host *rtnl.Conn, bridge rtnl.Link, want attach.Attachment) (rtnl.Link, error) {
	if want.Bridge.Filtering && !bridge.Filtering {
		if err := host.SetFiltering(bridge.Index); err != nil {
			return bridge, err
		}
	}
	leg := want.Bridge.Leg
	if leg == nil {
		return bridge, nil
	}
	port, err := host.Link(leg.Port.Name)
	if errors.Is(err, rtnl.ErrNoLink) {
		port, err = makeLeg(host, bridge, want)
	}
	if err != nil {
		return bridge, err
	}
	gateway, err := host.Link(leg.Name)
	if err != nil || port.Up {
		return gateway, err
	}
	if err := refuseAdverts(leg.Name); err != nil {
		return gateway, err
	}
	return gateway, errors.Join(host.SetVLANs(port.Index, leg.Port), host.Up(gateway.Index, false), host.StartPort(leg.Port))
}

// makeLeg makes the leg, and returns its port; another ADD may be faster.
func makeLeg(host *rtnl.Conn, bridge rtnl.Link, want attach.Attachment) (rtnl.Link, error) {
	leg := want.Bridge.Leg
	err := host.MakeVeth(leg.Port, bridge.Index, attach.Pod{Name: leg.Name, MAC: leg.MAC, MTU: leg.Port.MTU}, -1)
	if err == nil {
		err = apply(want.Bridge.Fresh)
	}
	if err != nil && !errors.Is(err, rtnl.ErrExists) {
		return rtnl.Link{}, err
	}
	port, err := host.Link(leg.Port.Name)
	if errors.Is(err, rtnl.ErrNoLink) {
		err = cni.Errorf(cni.CodeConflict, "vlan: the gateway's interface is to be %s, and somebody else has an interface of that name", leg.Name)
	}
	return port, err
}

// ensureGateway gives the bridge a gateway address, which it has already for all but the first pod. Beside another address
// of the family it is taken back again, or with forceAddress the other one removed, unless that is the gateway of another
// range of this network.
func ensureGateway(host *rtnl.Conn, bridge rtnl.Link, gateway netip.Prefix, conf podnet.Config) error {
	added, err := host.AddAddr(bridge.Index, gateway, false)
	if err != nil || !added {
		return err
	}
	if err := stranger(host, bridge.Name, conf, []netip.Prefix{gateway.Masked()}); err != nil {
		return errors.Join(err, host.DelAddr(bridge.Index, gateway))
	}
	family := uint8(unix.AF_INET6)
	if gateway.Addr().Is4() {
		family = unix.AF_INET
	}
	have, err := host.Addrs(bridge.Index, family)
	if err != nil {
		return err
	}
	for _, p := range have {
		if p == gateway || conf.IsGateway(p.Addr()) && p.Addr() != gateway.Addr() || family == unix.AF_INET6 && !p.Masked().Overlaps(gateway.Masked()) {
			continue
		}
		if !conf.Force {
			err := cni.Errorf(cni.CodeConflict, "bridge %s has address %s, this network wants %s: use another bridge, or set forceAddress to replace it", bridge.Name, p, gateway)
			return errors.Join(err, host.DelAddr(bridge.Index, gateway))
		}
		if err := host.DelAddr(bridge.Index, p); err != nil {
			return err
		}
	}
	return nil
}

// apply makes settings of the calling thread's namespace for an interface that is new.
func apply(settings []attach.Setting) error {
	for _, s := range settings {
		if err := sysctl.Set(s.Name, s.Value); err != nil && (s.Optional == "" || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}
