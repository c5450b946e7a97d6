// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/pool"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// locate reads what DEL and GC need to know, from a configuration that may have become invalid since the ADD: a runtime
// sends the one of today, and a pod must be removable whatever it says.
func locate(c *cni.Call) config {
	raw := rawConfig{Bridge: "cni0"}
	_ = read("", c.Keys, raw.fields())
	var ipam rawIPAM
	if o, err := raw.IPAM.Object(); err == nil {
		_ = read("", o, ipam.fields())
	}
	conf := config{Bridge: raw.Bridge, LeaseDir: mark.LeaseDir, CheckMAC: raw.MACSpoof, CheckSource: raw.SourceCheck}
	if ipam.Type != "" && ipam.Type != "host-local" {
		conf.Delegate, ipam = ipam.Type, rawIPAM{}
	}
	if ipam.DataDir != "" {
		conf.LeaseDir = strings.TrimSuffix(ipam.DataDir, "/")
	}
	return conf
}

// complete takes the subnets from the node file when the configuration has none.
func (conf *config) complete() error {
	if len(conf.Sets) > 0 || conf.NoAddress || conf.Delegate != "" {
		return nil
	}
	n, err := nodefile.Read(conf.NodeFile)
	if errors.Is(err, fs.ErrNotExist) {
		return cni.Errorf(cni.CodeNotAvailable, "this node's pod subnet is not known: the configuration has no subnet, and %s is not there (is routed running?)", conf.NodeFile)
	}
	if err != nil {
		return cni.Errorf(cni.CodeNotAvailable, "%w", err)
	}
	for i, p := range n.PodSubnets {
		r, err := pool.NewRange(p, netip.Addr{}, netip.Addr{}, netip.Addr{})
		if err != nil {
			return cni.Errorf(cni.CodeNotAvailable, "%s: podSubnets[%d]: %w", conf.NodeFile, i, err)
		}
		conf.Sets = append(conf.Sets, pool.Set{r})
	}
	if len(conf.Sets) == 0 {
		return cni.Errorf(cni.CodeNotAvailable, "%s names no pod subnet", conf.NodeFile)
	}
	return nil
}

// spec is what the attachment is decided from. A route without a gateway goes by the one of its family.
func (conf config) spec(c *cni.Call, mtu int, addrs []attach.Addr, mac *attach.MAC) attach.Spec {
	s := attach.Spec{
		Network: c.Net.Name, ContainerID: c.ContainerID, IfName: c.IfName, Bridge: conf.Bridge, MTU: mtu, MAC: mac,
		Gateway: conf.Gateway, DefaultRoute: conf.DefaultRoute, Hairpin: conf.Hairpin, Isolated: conf.Isolated, Promisc: conf.Promisc,
		Routed: conf.Routed, Down: conf.Down, DAD: conf.DAD, CheckMAC: conf.CheckMAC, CheckSource: conf.CheckSource, Addrs: addrs,
	}
	for _, r := range conf.Routes {
		if !r.Via.IsValid() {
			for _, a := range addrs {
				if a.Addr.Is4() == r.Dst.Addr().Is4() {
					r.Via = a.Gateway
					break
				}
			}
		}
		r.OnLink = conf.Routed && r.Via.IsValid()
		s.Routes = append(s.Routes, r)
	}
	return s
}

// openPod opens the pod's namespace and makes sure that it is not the node's.
func openPod(path string) (*netns.Handle, error) {
	if path == "" {
		return nil, cni.Errorf(cni.CodeInvalidEnvironment, "CNI_NETNS: missing")
	}
	ns, err := netns.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cni.Errorf(cni.CodeUnknownContainer, "%w", err)
	}
	if err != nil {
		return nil, cni.Errorf(cni.CodeInvalidNetns, "%w", err)
	}
	home, err := netns.Current()
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	same, err := ns.Same(home)
	if err == nil && same {
		err = cni.Errorf(cni.CodeInvalidNetns, "CNI_NETNS: %s is the node's own namespace", path)
	}
	if err = errors.Join(err, home.Close()); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}
