// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// ensureBridge makes the bridge when have is zero, and otherwise mends what is missing on it. Many first ADDs may do this
// at once: each message succeeds, or finds its work done.
func ensureBridge(host *rtnl.Conn, have rtnl.Link, want attach.Attachment, conf config) (rtnl.Link, error) {
	made := false
	if have.Index == 0 {
		var err error
		if made, err = host.MakeBridge(want.Bridge); err != nil {
			return have, err
		}
		if have, err = host.Link(want.Bridge.Name); err != nil {
			return have, err
		}
	}
	if have.Kind != "bridge" {
		return have, cni.Errorf(cni.CodeInvalidConfig, "bridge: %s is not a bridge", want.Bridge.Name)
	}
	if !have.Up || want.Bridge.Promisc && !have.Promisc {
		if err := host.Up(have.Index, want.Bridge.Promisc); err != nil {
			return have, err
		}
	}
	for _, gateway := range want.Bridge.Addrs {
		if err := ensureGateway(host, have, gateway, conf); err != nil {
			return have, err
		}
	}
	for _, s := range want.Settings {
		if s.Optional == "" {
			if err := sysctl.Ensure(s.Name, s.Value); err != nil {
				return have, err
			}
		} else if ok, err := sysctl.EnsureIfPresent(s.Name, s.Value); err != nil {
			return have, err
		} else if !ok && made {
			fmt.Fprintf(os.Stderr, "bridge-l3: this kernel has no setting %s: %s\n", s.Name, s.Optional)
		}
	}
	return have, nil
}

// ensureGateway gives the bridge a gateway address. Another address of the family is refused, or with forceAddress
// removed, unless it is the gateway of another range of this network.
func ensureGateway(host *rtnl.Conn, bridge rtnl.Link, gateway netip.Prefix, conf config) error {
	family := uint8(unix.AF_INET6)
	if gateway.Addr().Is4() {
		family = unix.AF_INET
	}
	have, err := host.Addrs(bridge.Index, family)
	if err != nil || slices.Contains(have, gateway) {
		return err
	}
	for _, p := range have {
		if conf.isGateway(p.Addr()) && p.Addr() != gateway.Addr() || family == unix.AF_INET6 && !p.Masked().Overlaps(gateway.Masked()) {
			continue
		}
		if !conf.Force {
			return cni.Errorf(cni.CodeConflict, "bridge %s has address %s, this network wants %s: use another bridge, or set forceAddress to replace it", bridge.Name, p, gateway)
		}
		if err := host.DelAddr(bridge.Index, p); err != nil {
			return err
		}
	}
	return host.AddAddr(bridge.Index, gateway, false)
}

func (conf config) isGateway(a netip.Addr) bool {
	for _, set := range conf.Sets {
		for _, r := range set {
			if r.Gateway == a {
				return true
			}
		}
	}
	return false
}

// apply makes settings of the calling thread's namespace.
func apply(settings []attach.Setting) error {
	for _, s := range settings {
		var err error
		if s.Optional != "" {
			_, err = sysctl.EnsureIfPresent(s.Name, s.Value)
		} else {
			err = sysctl.Ensure(s.Name, s.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
