// SPDX-License-Identifier: Apache-2.0

// Package attach says what one pod's attachment to the node's bridge must look like on both sides, without knowing the kernel.
//
//	node                                    pod
//	cni0  0a:58:<gateway>  10.10.10.1/24
//	  |
//	  `-- vethXXXXXXXXXXX  =================  eth0  0a:58:<address>  10.10.10.2/24, default via 10.10.10.1
//
// MACs are made of addresses, so that a neighbour's cache stays right when an address is given to another pod and no
// gratuitous ARP has to be flooded to every port on each ADD.
package attach

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
)

// Attachment is everything that ADD makes and CHECK compares, besides the lease.
type Attachment struct {
	Bridge   Bridge
	Port     Port
	Pod      Pod
	Settings []Setting // the node's
}

// Bridge is the node's side that all pods share.
type Bridge struct {
	Name    string
	MAC     MAC
	MTU     int            // bytes
	Addrs   []netip.Prefix // the gateways, with the length of their subnet
	Promisc bool
	Fresh   []Setting // made before it first comes up, if it is ours

	Filtering bool // it keeps VLANs apart
	Leg       *Leg // in a VLAN: the interface that has Addrs instead of the bridge
}

// Subnets are those of Addrs.
func (b Bridge) Subnets() (out []netip.Prefix) {
	for _, a := range b.Addrs {
		out = append(out, a.Masked())
	}
	return out
}

// Port is the node's end of the pod's veth pair.
type Port struct {
	Name, Bridge string
	Alias        string // tells a person, and GC, whose it is
	MAC          MAC
	MTU          int
	Hairpin      bool // a frame may leave where it came in: a pod balanced to itself
	Isolated     bool // no frame passes to another isolated port
	Guard        Guard
	VLANs        []VLAN // sorted by ID; none: as the bridge has it
	KeepVLANs    bool   // besides those that the port has already
	Down         bool   // passes nothing
	Blocked      bool   // the bridge passes nothing by it, although it is up
}

// Pod is the pod's end.
type Pod struct {
	Name     string
	MAC      MAC
	MTU      int
	Addrs    []netip.Prefix
	Routes   []Route
	Settings []Setting // in the pod's namespace
	Down     bool      // made, but left down
}

// Route is one route of the pod. Zero fields are the kernel's defaults.
type Route struct {
	Dst                   netip.Prefix
	Via                   netip.Addr
	OnLink                bool // Via need not be covered by an address
	MTU, AdvMSS, Priority int
	Table, Scope          *int
}

// Setting is one kernel setting by its path under /proc/sys.
type Setting struct {
	Name, Value string
	Optional    string // not empty: a kernel may lack it; what does not work then
}

// Spec is what an attachment is decided from.
type Spec struct {
	Network, ContainerID, IfName string
	Bridge                       string
	MTU                          int  // of pod and port
	BridgeMAC                    *MAC // nil: of the first gateway
	MAC                          *MAC // asked for; nil: of the first address
	Gateway                      bool // the bridge holds the gateway addresses and the node forwards
	DefaultRoute                 bool // by way of the gateways
	Hairpin, Isolated, Promisc   bool
	VLAN                         VLANSpec
	Routed                       bool // pods of one node reach each other through the node only
	Down                         bool
	CheckMAC, CheckSource        bool // drop what the pod sends from another MAC, or from other addresses too
	DAD                          bool // let the kernel look for duplicates of the pod's IPv6 addresses
	Addrs                        []Addr
	Routes                       []Route // besides the default
}

// Addr is one address of the pod in its subnet.
type Addr struct {
	Addr    netip.Addr
	Subnet  netip.Prefix
	Gateway netip.Addr // zero: none
}

// PortName is the node's end for an attachment: always the same, so that DEL needs to know nothing else.
func PortName(containerID, ifName string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(containerID + "@" + ifName))
	const digits = 11 // of 5 bits; with "veth" as long as a name may be (IFNAMSIZ 16 with its zero)
	s := strconv.FormatUint(h.Sum64()|1<<63, 32)
	return "veth" + s[len(s)-digits:]
}

// AliasMark begins the alias of every port that we made, for whatever network.
const AliasMark = "l3edge "

// AliasPrefix begins the alias of every port that the network's plugin made.
func AliasPrefix(network string) string { return cutAlias(AliasMark + network + " ") }

// cutAlias leaves of an alias what a port can have: IFALIASZ 256, less a zero that the message has, and one that the kernel
// wants room for.
func cutAlias(s string) string { return s[:min(len(s), 254)] }

// LeastMTU6 is what IPv6 needs of a link, bytes (RFC 8200 section 5): one with less has none.
const LeastMTU6 = 1280

// Decide computes the attachment.
func Decide(s Spec) Attachment {
	alias := cutAlias(AliasMark + s.Network + " " + s.ContainerID + " " + s.IfName)
	name := PortName(s.ContainerID, s.IfName)
	a := Attachment{
		Bridge: Bridge{Name: s.Bridge, MTU: s.MTU, Promisc: s.Promisc, MAC: random(s.Network + s.Bridge)},
		Port:   Port{Name: name, Bridge: s.Bridge, Alias: alias, MAC: random(name), MTU: s.MTU, Hairpin: s.Hairpin, Isolated: s.Isolated || s.Routed},
		Pod:    Pod{Name: s.IfName, MAC: random(name + "/pod"), MTU: s.MTU, Down: s.Down},
	}
	if len(s.Addrs) > 0 {
		a.Pod.MAC = MACOf(s.Addrs[0].Addr)
		if s.Addrs[0].Gateway.IsValid() {
			a.Bridge.MAC = MACOf(s.Addrs[0].Gateway)
		}
	}
	if s.BridgeMAC != nil {
		a.Bridge.MAC = *s.BridgeMAC
	}
	if s.MAC != nil {
		a.Pod.MAC = *s.MAC
	}
	for _, addr := range s.Addrs {
		a.addAddr(s, addr)
	}
	a.vlans(s)
	a.Pod.Routes = append(a.Pod.Routes, s.Routes...)
	if s.CheckMAC || s.CheckSource {
		a.Port.Guard = Bind(a.Pod, s.CheckSource)
	}
	a.settings(s)
	return a
}

// addAddr adds one address of the pod and what belongs to it.
func (a *Attachment) addAddr(s Spec, addr Addr) {
	if gateway := netip.PrefixFrom(addr.Gateway, addr.Subnet.Bits()); s.Gateway && addr.Gateway.IsValid() && !slices.Contains(a.Bridge.Addrs, gateway) {
		a.Bridge.Addrs = append(a.Bridge.Addrs, gateway)
	}
	bits := addr.Subnet.Bits()
	if s.Routed {
		bits = addr.Addr.BitLen()
	}
	a.Pod.Addrs = append(a.Pod.Addrs, netip.PrefixFrom(addr.Addr, bits))
	if !s.DefaultRoute || !addr.Gateway.IsValid() {
		return
	}
	everything := netip.PrefixFrom(zero(addr.Addr), 0)
	if !slices.ContainsFunc(s.Routes, func(r Route) bool { return r.Dst == everything }) &&
		!slices.ContainsFunc(a.Pod.Routes, func(r Route) bool { return r.Dst == everything }) {
		a.Pod.Routes = append(a.Pod.Routes, Route{Dst: everything, Via: addr.Gateway, OnLink: s.Routed})
	}
}

func (a *Attachment) settings(s Spec) {
	v4, v6 := false, false
	for _, addr := range s.Addrs {
		v4, v6 = v4 || addr.Addr.Is4(), v6 || addr.Addr.Is6()
	}
	if s.Gateway {
		a.Settings = append(NodeSettings(v4, v6, s.Routed), Forwarding(a.Bridge.Gateway(), v4, v6)...)
	}
	a.Settings = append(a.Settings, NoAdverts(s.Bridge))
	if a.Bridge.Leg != nil {
		a.Settings = append(a.Settings, NoAdverts(a.Bridge.Leg.Name))
	}
	if v6 {
		// The node asks for pods from the bridge's link-local address, and for a second not at all while that looks for
		// duplicates of itself, of which its MAC allows none.
		a.Bridge.Fresh = []Setting{{"net/ipv6/conf/" + a.Bridge.Gateway() + "/accept_dad", "0", ""}}
	}
	off := func(name string) {
		a.Pod.Settings = append(a.Pod.Settings, Setting{name, "0", ""})
	}
	dev := "net/ipv6/conf/" + s.IfName + "/"
	if v6 {
		off(dev + "disable_ipv6")
	}
	a.Pod.Settings = append(a.Pod.Settings, NoAdverts(s.IfName))
	if s.Routed && v4 {
		// The node sends every packet back out of the bridge that it came from, and would tell pods of a shorter way.
		off("net/ipv4/conf/all/accept_redirects")
		off("net/ipv4/conf/" + s.IfName + "/accept_redirects")
	}
	if s.Routed && v6 {
		off(dev + "accept_redirects")
	}
}

// NoAdverts makes an interface take no routes from what others advertise: those of a bridge are the node's own, whether it
// is a gateway or not, and a pod's are ours. Forwarding alone does not refuse them: on a node that gets its default route
// so, accept_ra is 2 for whatever comes up.
func NoAdverts(ifName string) Setting {
	return Setting{"net/ipv6/conf/" + ifName + "/accept_ra", "0", "the kernel has no IPv6, so there is nothing to refuse"}
}

// Forwarding is what the interface with the gateway addresses needs besides: it has what the node had when it was made.
func Forwarding(ifName string, v4, v6 bool) (out []Setting) {
	if v4 {
		out = append(out, Setting{Name: "net/ipv4/conf/" + ifName + "/forwarding", Value: "1"})
	}
	if v6 {
		out = append(out, Setting{Name: "net/ipv6/conf/" + ifName + "/forwarding", Value: "1"})
	}
	return out
}

// NodeSettings is what the node needs so that pods are routed, and services between two of its pods are answered.
func NodeSettings(v4, v6, routed bool) []Setting {
	const lacking = "a service whose client and server are pods of this node does not work (load br_netfilter, or set localRouting to routed)"
	var out []Setting
	if v4 {
		out = append(out, Setting{Name: "net/ipv4/ip_forward", Value: "1"})
	}
	if v6 {
		out = append(out, Setting{Name: "net/ipv6/conf/all/forwarding", Value: "1"})
	}
	if v4 && !routed {
		out = append(out, Setting{"net/bridge/bridge-nf-call-iptables", "1", lacking})
	}
	if v6 && !routed {
		out = append(out, Setting{"net/bridge/bridge-nf-call-ip6tables", "1", lacking})
	}
	return out
}

func zero(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// String prints the attachment a line per fact, for --dry-run and golden files.
func (a Attachment) String() string {
	s := fmt.Sprintf("bridge %s mac %s mtu %d promisc %t addresses %v\n", a.Bridge.Name, a.Bridge.MAC, a.Bridge.MTU, a.Bridge.Promisc, a.Bridge.Addrs)
	s += a.Bridge.vlanString()
	for _, set := range append(slices.Clone(a.Bridge.Fresh), a.Settings...) {
		s += fmt.Sprintf("node  %s = %s\n", set.Name, set.Value)
	}
	s += fmt.Sprintf("port  %s mac %s mtu %d hairpin %t isolated %t alias %q\n", a.Port.Name, a.Port.MAC, a.Port.MTU, a.Port.Hairpin, a.Port.Isolated, a.Port.Alias)
	if len(a.Port.VLANs) > 0 {
		s += fmt.Sprintf("port  %s vlans %v keep others %t\n", a.Port.Name, a.Port.VLANs, a.Port.KeepVLANs)
	}
	if !a.Port.Guard.Equal(Guard{}) {
		s += fmt.Sprintf("port  %s may send as %s, %v\n", a.Port.Name, a.Port.Guard.MAC, a.Port.Guard.Addrs)
	}
	s += fmt.Sprintf("pod   %s mac %s mtu %d down %t addresses %v\n", a.Pod.Name, a.Pod.MAC, a.Pod.MTU, a.Pod.Down, a.Pod.Addrs)
	for _, r := range a.Pod.Routes {
		s += fmt.Sprintf("pod   route %s\n", r)
	}
	for _, set := range a.Pod.Settings {
		s += fmt.Sprintf("pod   %s = %s\n", set.Name, set.Value)
	}
	return s
}
