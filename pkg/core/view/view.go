// SPDX-License-Identifier: Apache-2.0

// Package view is one host as l3ctl sees it: what its kernel, our daemons and its files say, as plain values that travel
// as JSON, so that one host's view can be read on another.
package view

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/traffic"
)

// Host is everything that was seen of one host at one moment. What could not be read is empty, and its problem says why.
type Host struct {
	Name     string            `json:"name"`
	Seen     time.Time         `json:"seen"`
	Version  string            `json:"version"`           // of the l3ctl that looked
	Lost     string            `json:"lost,omitempty"`    // why nothing could be seen; all else is empty then
	Partial  string            `json:"partial,omitempty"` // why the runtime's files and the pods are out of sight
	Node     *node.Node        `json:"node,omitempty"`
	NodeLack string            `json:"nodeProblem,omitempty"`
	Routed   Routed            `json:"routed"`
	Portald  Portald           `json:"portald"`
	Networks []Network         `json:"networks,omitempty"` // CNI configurations that name one of our plugins
	Links    []Link            `json:"links"`
	Routes   []Route           `json:"routes"`
	Settings map[string]string `json:"settings"` // by the path under /proc/sys; what the kernel lacks is not there
	Pods     []Pod             `json:"pods,omitempty"`
	Leases   []Lease           `json:"leases,omitempty"`
	Tables   []string          `json:"tables,omitempty"`         // nftables tables of ours that are there: "ip l3edge"
	Chains   []string          `json:"chains,omitempty"`         // iptables chains of ours that are there and led to
	Others   []Rule            `json:"referenceRules,omitempty"` // of the reference plugins, a container's each; only where somebody looked
	Problems []string          `json:"problems,omitempty"`
}

// Routed is what routed answers, as far as l3ctl reads it.
type Routed struct {
	Problem    string         `json:"problem,omitempty"` // why it does not answer
	Version    string         `json:"version,omitempty"`
	Since      time.Time      `json:"since,omitzero"`
	ASN        uint32         `json:"asn,omitempty"`
	RouterID   netip.Addr     `json:"routerID,omitzero"`
	PodSubnets []netip.Prefix `json:"podSubnets,omitempty"`
	Waiting    string         `json:"waiting,omitempty"`
	Config     string         `json:"configuration,omitempty"`
	Sessions   []Session      `json:"sessions,omitempty"`
	Routes     []RoutedRoute  `json:"routes,omitempty"`
	Announced  []Announced    `json:"announced,omitempty"`
	Held       []Announced    `json:"held,omitempty"`
	Refused    []Refused      `json:"refused,omitempty"`
}

// Session is one BGP session.
type Session struct {
	Peer     string     `json:"peer"`
	Address  netip.Addr `json:"address,omitzero"`
	ASN      uint32     `json:"asn,omitempty"`
	State    string     `json:"state"`
	Since    time.Time  `json:"since"`
	Problem  string     `json:"problem,omitempty"`
	Dynamic  bool       `json:"dynamic,omitempty"`
	In       uint64     `json:"prefixesIn"`
	Out      uint64     `json:"prefixesOut"`
	Losses   uint64     `json:"losses"`
	BFD      string     `json:"bfd,omitempty"`      // state, where it runs
	HoldTime int        `json:"holdTime,omitempty"` // seconds, as negotiated
}

// Up reports an established session.
func (s Session) Up() bool { return strings.EqualFold(s.State, "established") }

// RoutedRoute is one prefix that routed keeps in the kernel.
type RoutedRoute struct {
	Prefix netip.Prefix `json:"prefix"`
	Via    []netip.Addr `json:"via,omitempty"` // none: unreachable
	Stale  bool         `json:"stale,omitempty"`
	Failed bool         `json:"unprogrammed,omitempty"`
}

// Announced is a prefix that is, or is not, announced, and why.
type Announced struct {
	Prefix  netip.Prefix `json:"prefix"`
	Why     string       `json:"why"`
	Lacks   string       `json:"lacks,omitempty"`
	Leaving bool         `json:"leaving,omitempty"`
}

// Refused is a learned way that is not used.
type Refused struct {
	Prefix netip.Prefix `json:"prefix"`
	Peer   netip.Addr   `json:"peer"`
	Reason string       `json:"reason"`
}

// Portald is what portald answers.
type Portald struct {
	Problem   string         `json:"problem,omitempty"`
	Version   string         `json:"version,omitempty"`
	Mode      string         `json:"mode,omitempty"`
	Synced    bool           `json:"synced,omitempty"`
	LastSync  time.Time      `json:"lastSync,omitzero"`
	LastError string         `json:"lastError,omitempty"`
	Nets      []netip.Prefix `json:"portalNets,omitempty"`
	Services  int            `json:"services,omitempty"`
	Endpoints int            `json:"endpoints,omitempty"`
	Portals   []Portal       `json:"portals,omitempty"`
	Problems  []string       `json:"problems,omitempty"`
}

// Portal is one portal as it is programmed.
type Portal struct {
	VIP       netip.Addr       `json:"vip"`
	Protocol  string           `json:"protocol"`
	Port      uint16           `json:"port"`
	Service   string           `json:"service"` // namespace/name
	PortName  string           `json:"portName,omitempty"`
	Kind      string           `json:"kind,omitempty"` // "ClusterIP", …; empty: not told
	Endpoints []netip.AddrPort `json:"endpoints"`      // for clients on the node
	Drops     bool             `json:"drops,omitempty"`
	Outside   *Choice          `json:"outside,omitempty"` // for clients that are not on the node, where that differs
	Sources   []netip.Prefix   `json:"sources,omitempty"` // who may come; empty: everybody
	Mode      string           `json:"mode"`              // "nftables" or "userspace"
	ProxyPort uint16           `json:"proxyPort,omitempty"`
	Traffic   *traffic.Stats   `json:"traffic,omitempty"` // what portald's proxy has carried; nil: the kernel answers
}

// Choice is what one group of clients gets. Without endpoints they are refused, or meet silence where Drops.
type Choice struct {
	Endpoints []netip.AddrPort `json:"endpoints"`
	Drops     bool             `json:"drops,omitempty"`
}

// String is "webfrontend TCP 10.100.87.105:80", without the namespace "default".
func (p Portal) String() string {
	return p.Name() + " " + p.Protocol + " " + netip.AddrPortFrom(p.VIP, p.Port).String()
}

// Name is the service and port without the namespace "default".
func (p Portal) Name() string {
	s := strings.TrimPrefix(p.Service, "default/")
	if p.PortName != "" {
		s += ":" + p.PortName
	}
	return s
}

// Link is one interface.
type Link struct {
	Name   string         `json:"name"`
	Index  int            `json:"index"`
	Master string         `json:"master,omitempty"`
	Kind   string         `json:"kind,omitempty"`
	Alias  string         `json:"alias,omitempty"`
	MTU    int            `json:"mtu"`
	Up     bool           `json:"up"`
	Port   Port           `json:"port,omitzero"` // where Master is a bridge
	Addrs  []netip.Prefix `json:"addresses,omitempty"`
}

// Port is how a link is a port of its bridge.
type Port struct {
	Hairpin  bool `json:"hairpin,omitempty"`  // a frame may leave where it came in
	Isolated bool `json:"isolated,omitempty"` // no frame passes to another isolated port
}

// Route is one unicast route of the main table, or an unreachable one.
type Route struct {
	Dst      netip.Prefix `json:"dst"`
	Via      netip.Addr   `json:"via,omitzero"`
	Dev      string       `json:"dev,omitempty"`
	More     []Hop        `json:"more,omitempty"` // the other ways of a multipath route
	Metric   int          `json:"metric,omitempty"`
	Protocol int          `json:"protocol,omitempty"`
	Type     string       `json:"type,omitempty"` // "unreachable", "blackhole"; empty: unicast
}

// Hop is one way of a multipath route.
type Hop struct {
	Via netip.Addr `json:"via,omitzero"`
	Dev string     `json:"dev,omitempty"`
}

// Pod is one attachment as the runtime remembers it (libcni's cache of results).
type Pod struct {
	Name      string       `json:"name"` // namespace/name, or the container's id where the runtime told no name
	Container string       `json:"containerID"`
	IfName    string       `json:"ifname"`
	Network   string       `json:"network"`
	Netns     string       `json:"netns"`
	Alive     bool         `json:"alive"` // its namespace is there
	Veth      string       `json:"veth,omitempty"`
	Addrs     []netip.Addr `json:"addresses,omitempty"`
	Gateways  []netip.Addr `json:"gateways,omitempty"` // the bridge's addresses for it
	Bridge    string       `json:"bridge,omitempty"`
	Port      *Port        `json:"port,omitempty"`      // how its veth shall be a port; nil: not known
	Unbound   string       `json:"unbound,omitempty"`   // why its veth may send as anybody, although its network binds ports to pods
	Want      Side         `json:"want"`                // its end, as ADD made it
	Have      *Side        `json:"have,omitempty"`      // as it is; nil: its namespace is gone
	Processes []Process    `json:"processes,omitempty"` // that share its namespace
	HostPorts []HostPort   `json:"hostPorts,omitempty"`
}

// Side is the pod's end of its cable.
type Side struct {
	MAC    string         `json:"mac,omitempty"`
	Down   bool           `json:"down,omitempty"`
	Addrs  []netip.Prefix `json:"addresses,omitempty"`
	Routes []Route        `json:"routes,omitempty"` // destination and gateway only
}

// Short is the name without the namespace "default".
func (p Pod) Short() string { return strings.TrimPrefix(p.Name, "default/") }

// HostPort is a port of the node that leads to the pod.
type HostPort struct {
	Protocol string `json:"protocol"` // "tcp"
	Port     uint16 `json:"port"`
	To       uint16 `json:"to"` // of the pod
}

// String is "tcp 80 -> 8080".
func (p HostPort) String() string { return fmt.Sprintf("%s %d -> %d", p.Protocol, p.Port, p.To) }

// Published finds the living pod that a TCP port of the host leads to, if the address is the host's.
func (h Host) Published(to netip.AddrPort) (Pod, HostPort, bool) {
	if _, own := h.Own(to.Addr()); !own {
		return Pod{}, HostPort{}, false
	}
	for _, p := range h.Pods {
		for _, m := range p.HostPorts {
			if p.Alive && len(p.Addrs) > 0 && m.Port == to.Port() && strings.EqualFold(m.Protocol, "tcp") {
				return p, m, true
			}
		}
	}
	return Pod{}, HostPort{}, false
}

// Process is one process of a pod.
type Process struct {
	Pid  int    `json:"pid"`
	Name string `json:"name"`
}

// Lease is one address of the lease store.
type Lease struct {
	Network   string     `json:"network"`
	Addr      netip.Addr `json:"address"`
	Container string     `json:"containerID,omitempty"` // empty: the file says nothing that we understand
	IfName    string     `json:"ifname,omitempty"`
	Pod       string     `json:"pod,omitempty"`
	Since     time.Time  `json:"since,omitzero"`
	HostLocal string     `json:"hostLocal,omitempty"` // path of the file, where host-local wrote it and not we
}

// Link finds an interface by name.
func (h Host) Link(name string) (Link, bool) {
	i := slices.IndexFunc(h.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return h.Links[i], true
}

// Own reports the interface that holds a.
func (h Host) Own(a netip.Addr) (Link, bool) {
	i := slices.IndexFunc(h.Links, func(l Link) bool {
		return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
	})
	if i < 0 {
		return Link{}, false
	}
	return h.Links[i], true
}

// PodAt finds the pod that has the address; of several, the one that lives.
func (h Host) PodAt(a netip.Addr) (Pod, bool) {
	var found Pod
	ok := false
	for _, p := range h.Pods {
		if slices.Contains(p.Addrs, a) && (!ok || p.Alive) {
			found, ok = p, true
		}
	}
	return found, ok
}

// PodNamed finds a living pod by name, with or without the namespace "default", or by container id.
func (h Host) PodNamed(name string) (Pod, bool) {
	i := slices.IndexFunc(h.Pods, func(p Pod) bool {
		return p.Alive && (p.Name == name || p.Short() == name || p.Container == name)
	})
	if i < 0 {
		return Pod{}, false
	}
	return h.Pods[i], true
}

// Uplink is the interface of the default route, or what the node file says.
func (h Host) Uplink() string {
	if h.Node != nil && h.Node.Uplink != "" {
		return h.Node.Uplink
	}
	if r, ok := h.Lookup(netip.IPv4Unspecified()); ok {
		return r.Dev
	}
	return ""
}

// Primary is the address that the host is known by: its first on the uplink, else its first at all.
func (h Host) Primary() netip.Addr {
	if h.Node != nil && len(h.Node.Addresses) > 0 {
		return h.Node.Addresses[0]
	}
	var first netip.Addr
	for _, l := range h.Links {
		for _, p := range l.Addrs {
			switch a := p.Addr(); {
			case a.IsLoopback() || a.IsLinkLocalUnicast():
			case l.Name == h.Uplink() && a.Is4():
				return a
			case !first.IsValid():
				first = a
			}
		}
	}
	return first
}

// PodSubnets are the host's: of the node file, else of its CNI configurations.
func (h Host) PodSubnets() []netip.Prefix {
	if h.Node != nil && len(h.Node.PodSubnets) > 0 {
		return h.Node.PodSubnets
	}
	var out []netip.Prefix
	for _, n := range h.Networks {
		out = append(out, n.Subnets...)
	}
	return out
}

// Lookup is the route that the kernel would take to a: longest prefix, then lowest metric.
func (h Host) Lookup(a netip.Addr) (Route, bool) {
	var best Route
	found := false
	for _, r := range h.Routes {
		if !r.Dst.Contains(a) && !(r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == a.Is4()) {
			continue
		}
		if !found || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric {
			best, found = r, true
		}
	}
	return best, found
}

// String is the route in the words of ip route.
func (r Route) String() string {
	s := r.Dst.String()
	if r.Dst.Bits() == 0 {
		s = "default"
	}
	if r.Type != "" {
		s = r.Type + " " + s
	}
	for _, hop := range append([]Hop{{r.Via, r.Dev}}, r.More...) {
		if hop.Via.IsValid() {
			s += " via " + hop.Via.String()
		}
		if hop.Dev != "" {
			s += " dev " + hop.Dev
		}
	}
	return s
}
