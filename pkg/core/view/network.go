// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

// Network is one CNI configuration list that names one of our plugins.
type Network struct {
	File     string         `json:"file"`
	Name     string         `json:"name"`
	Plugins  []string       `json:"plugins"` // types, in order
	Bridge   string         `json:"bridge"`
	Subnets  []netip.Prefix `json:"subnets,omitempty"` // none: those of the node file
	Ranges   []Range        `json:"ranges,omitempty"`  // of Subnets, where pods get their addresses from
	DataDir  string         `json:"dataDir,omitempty"` // host-local's, or of our leases; empty: the default
	Routed   bool           `json:"routed,omitempty"`  // pods of one node reach each other through the node only
	Delegate string         `json:"ipam,omitempty"`    // another plugin gives the addresses
}

// Range is the part of a subnet that pods get addresses from. What is zero is the subnet's own: its first host address is
// the gateway, its ends are First and Last.
type Range struct {
	Subnet  netip.Prefix `json:"subnet"`
	First   netip.Addr   `json:"rangeStart,omitzero"`
	Last    netip.Addr   `json:"rangeEnd,omitzero"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
}

type rawPlugin struct {
	Type         string       `json:"type"`
	Bridge       string       `json:"bridge"`
	Subnet       netip.Prefix `json:"subnet"`
	Ranges       [][]Range    `json:"ranges"`
	LocalRouting string       `json:"localRouting"`
	IPAM         struct {
		Range
		Type    string    `json:"type"`
		Ranges  [][]Range `json:"ranges"`
		DataDir string    `json:"dataDir"`
	} `json:"ipam"`
}

// Leases reports that bridge-l3 itself gives the network's addresses.
func (n Network) Leases() bool { return n.Delegate == "" && slices.Contains(n.Plugins, "bridge-l3") }

// LocalNet is the setting that lets packets from and to 127.0.0.1 cross a bridge (net/ipv4/conf/NAME/route_localnet).
func LocalNet(bridge string) string { return "net/ipv4/conf/" + bridge + "/route_localnet" }

// Ours are the plugin types that make a network one of ours.
var Ours = []string{"bridge-l3", "portal"}

// ParseNetwork reads a configuration list; ok is false when none of its plugins is ours.
func ParseNetwork(file string, text []byte) (n Network, ok bool, err error) {
	var raw struct {
		Name    string      `json:"name"`
		Plugins []rawPlugin `json:"plugins"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return Network{}, false, fmt.Errorf("%s: %w", file, err)
	}
	n = Network{File: file, Name: raw.Name}
	for _, p := range raw.Plugins {
		n.Plugins = append(n.Plugins, p.Type)
		ok = ok || slices.Contains(Ours, p.Type)
		if p.Type != "bridge-l3" && p.Type != "bridge" {
			continue
		}
		n.Bridge, n.DataDir, n.Routed = p.Bridge, p.IPAM.DataDir, p.LocalRouting == "routed"
		if n.Bridge == "" {
			n.Bridge = "cni0"
		}
		if p.IPAM.Type != "" && p.IPAM.Type != "host-local" {
			n.Delegate = p.IPAM.Type
		}
		n.use(Range{Subnet: p.Subnet}, p.IPAM.Range)
		for _, set := range append(p.Ranges, p.IPAM.Ranges...) {
			n.use(set...)
		}
	}
	return n, ok, nil
}

// use adds ranges, and their subnets once each.
func (n *Network) use(ranges ...Range) {
	for _, r := range ranges {
		if !r.Subnet.IsValid() {
			continue
		}
		r.Subnet = r.Subnet.Masked()
		n.Ranges = append(n.Ranges, r)
		if !slices.Contains(n.Subnets, r.Subnet) {
			n.Subnets = append(n.Subnets, r.Subnet)
		}
	}
}

// mainTable is RT_TABLE_MAIN (linux/rtnetlink.h).
const mainTable = 254

// cached is the file of libcni's cache (its cachedInfo), as far as we read it.
type cached struct {
	Kind        string      `json:"kind"`
	ContainerID string      `json:"containerId"`
	IfName      string      `json:"ifName"`
	Network     string      `json:"networkName"`
	NetNS       string      `json:"netns"`
	Args        [][2]string `json:"cniArgs"`
	Capability  struct {
		Ports []struct {
			HostPort      uint16 `json:"hostPort"`
			ContainerPort uint16 `json:"containerPort"`
			Protocol      string `json:"protocol"`
		} `json:"portMappings"`
	} `json:"capabilityArgs"`
	Result struct {
		Interfaces []struct {
			Name    string `json:"name"`
			MAC     string `json:"mac"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address netip.Prefix `json:"address"`
			Gateway netip.Addr   `json:"gateway"`
		} `json:"ips"`
		Routes []struct {
			Dst   netip.Prefix `json:"dst"`
			GW    netip.Addr   `json:"gw"`
			Table int          `json:"table"`
		} `json:"routes"`
	} `json:"result"`
}

// ParseAttachment reads one file of libcni's cache; ok is false when it is none (kind "cniCacheV1").
func ParseAttachment(text []byte) (p Pod, ok bool, err error) {
	var c cached
	if err := json.Unmarshal(text, &c); err != nil {
		return Pod{}, false, fmt.Errorf("read the runtime's record: %w", err)
	}
	if c.Kind != "cniCacheV1" {
		return Pod{}, false, nil
	}
	p = Pod{Name: c.ContainerID, Container: c.ContainerID, IfName: c.IfName, Network: c.Network, Netns: c.NetNS}
	args := map[string]string{}
	for _, a := range c.Args {
		args[a[0]] = a[1]
	}
	if name := args["K8S_POD_NAME"]; name != "" {
		p.Name = args["K8S_POD_NAMESPACE"] + "/" + name
	}
	for i, link := range c.Result.Interfaces {
		if link.Sandbox != "" && p.Netns == "" {
			p.Netns = link.Sandbox
		}
		switch {
		case link.Sandbox == "" && i == 0: // the bridge comes first
			p.Bridge = link.Name
		case link.Sandbox == "" && p.Veth == "":
			p.Veth = link.Name
		case link.Sandbox != "" && link.Name == c.IfName:
			p.Want.MAC = link.MAC
		}
	}
	for _, ip := range c.Result.IPs {
		p.Addrs = append(p.Addrs, ip.Address.Addr())
		p.Want.Addrs = append(p.Want.Addrs, ip.Address)
		if ip.Gateway.IsValid() {
			p.Gateways = append(p.Gateways, ip.Gateway)
		}
	}
	for _, r := range c.Result.Routes {
		if r.Table != 0 && r.Table != mainTable {
			continue // a Side is of the main table
		}
		if !r.GW.IsValid() { // the address's own then, as the plugins take it
			i := slices.IndexFunc(p.Gateways, func(a netip.Addr) bool { return a.Is4() == r.Dst.Addr().Is4() })
			if i >= 0 {
				r.GW = p.Gateways[i]
			}
		}
		p.Want.Routes = append(p.Want.Routes, Route{Dst: r.Dst.Masked(), Via: r.GW})
	}
	for _, m := range c.Capability.Ports {
		p.HostPorts = append(p.HostPorts, HostPort{cmp.Or(m.Protocol, "tcp"), m.HostPort, m.ContainerPort})
	}
	return p, true, nil
}
