// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

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
		if made {
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

// ensureGateway gives the bridge a gateway address, which it has already for all but the first pod. Beside another address
// of the family it is taken back again, or with forceAddress the other one removed, unless that is the gateway of another
// range of this network.
func ensureGateway(host *rtnl.Conn, bridge rtnl.Link, gateway netip.Prefix, conf config) error {
	added, err := host.AddAddr(bridge.Index, gateway, false)
	if err != nil || !added {
		return err
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
		if p == gateway || conf.isGateway(p.Addr()) && p.Addr() != gateway.Addr() || family == unix.AF_INET6 && !p.Masked().Overlaps(gateway.Masked()) {
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

// apply makes settings of the calling thread's namespace for an interface that is new.
func apply(settings []attach.Setting) error {
	for _, s := range settings {
		if err := sysctl.Set(s.Name, s.Value); err != nil && (s.Optional == "" || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}
