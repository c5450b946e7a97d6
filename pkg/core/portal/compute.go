// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// Options is what a Table depends on besides services: where it is for.
type Options struct {
	Node          node.Node
	Zone          string         // of the node; empty: unknown
	Nets          []netip.Prefix // portal nets; every ClusterIP must lie inside one, unless there are none
	NodePortAddrs []netip.Addr   // the node's addresses that answer NodePorts; nil: its first of each family
	Localhost     bool           // 127.0.0.1 answers NodePorts too, for the node's own processes
}

// NodePortAddrs are the addresses of a node that lie in one of the prefixes, for Options; nil if there are no prefixes.
func NodePortAddrs(n node.Node, ps []netip.Prefix) []netip.Addr {
	if len(ps) == 0 {
		return nil
	}
	out := []netip.Addr{}
	for _, a := range n.Addresses {
		if within(ps, a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// Compute decides what this node answers for every service address.
func Compute(s service.Snapshot, o Options) Table { return NewMemo(o).Compute(s) }

// claim is one Key that one Service asks for.
type claim struct {
	key    Key
	portal Portal
}

// claims lists every Key of one service, in no order.
func claims(st *service.State, o *Options) []claim {
	var out []claim
	svc := &st.Service
	mute := muteOn(svc, o)
	for i, port := range svc.Ports {
		if port.NodePort != 0 && mute.IsValid() {
			p := Portal{Service: service.PortName{Name: svc.Name, Port: port.Name}, Kind: NodePort}
			out = append(out, claim{Key{mute, port.Protocol, port.NodePort}, p})
		}
		name := service.PortName{Name: svc.Name, Port: port.Name}
		for _, v4 := range []bool{true, false} {
			if !asks(svc, port, v4, o) {
				continue
			}
			pick := choose(svc, st.Of(i), v4, o)
			add := func(a netip.Addr, number uint16, kind Kind) {
				if a.Is4() != v4 {
					return
				}
				p := Portal{Service: name, Kind: kind, Affinity: svc.Affinity, Annotations: svc.Annotations}
				switch {
				case kind == ClusterIP:
					p.Endpoints, p.OnEmpty = pick.internal.Endpoints, pick.internal.OnEmpty
				default:
					p.Endpoints, p.OnEmpty, p.Outside = pick.cluster.Endpoints, pick.cluster.OnEmpty, pick.outside
					p.Local = svc.ExternalPolicy == service.Local
				}
				if kind == LoadBalancer {
					p.Sources = family(svc.SourceRanges, v4)
				}
				out = append(out, claim{Key{a, port.Protocol, number}, p})
			}
			for _, a := range svc.ClusterIPs {
				add(a, port.Port, ClusterIP)
			}
			for _, a := range svc.LoadBalancers {
				add(a, port.Port, LoadBalancer)
			}
			for _, a := range svc.ExternalIPs {
				add(a, port.Port, ExternalIP)
			}
			if port.NodePort != 0 && speaks(svc, v4) {
				for _, a := range o.NodePortAddrs {
					add(a, port.NodePort, NodePort)
				}
			}
		}
	}
	return out
}

// asks reports that the service has an address of the family for the port.
func asks(svc *service.Service, port service.Port, v4 bool, o *Options) bool {
	has := func(as []netip.Addr) bool {
		return slices.ContainsFunc(as, func(a netip.Addr) bool { return a.Is4() == v4 })
	}
	return has(svc.ClusterIPs) || has(svc.LoadBalancers) || has(svc.ExternalIPs) || port.NodePort != 0 && speaks(svc, v4) && has(o.NodePortAddrs)
}

// muteOn is the unspecified address of a family that the service speaks, if no address of the node answers its NodePorts in
// any: a claim for it is refused, so that somebody hears of it.
func muteOn(svc *service.Service, o *Options) netip.Addr {
	if slices.ContainsFunc(o.NodePortAddrs, func(a netip.Addr) bool { return !a.IsLoopback() && speaks(svc, a.Is4()) }) {
		return netip.Addr{}
	}
	if speaks(svc, true) {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// speaks reports that a service is one of the family: its ClusterIPs say so, if it has any. The number of its NodePort is
// free for others in a family that it does not speak.
func speaks(svc *service.Service, v4 bool) bool {
	return len(svc.ClusterIPs) == 0 || slices.ContainsFunc(svc.ClusterIPs, func(a netip.Addr) bool { return a.Is4() == v4 })
}

// nobody is a source range that no address lies in: ranges of the other family only still mean "not everybody".
var nobody = map[bool]netip.Prefix{
	true:  netip.PrefixFrom(netip.IPv4Unspecified(), 32),
	false: netip.PrefixFrom(netip.IPv6Unspecified(), 128),
}

func family(ps []netip.Prefix, v4 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if p.Addr().Is4() == v4 {
			out = append(out, p)
		}
	}
	if len(ps) > 0 && len(out) == 0 {
		return []netip.Prefix{nobody[v4]}
	}
	return out
}

// choices are the endpoints that the groups of clients of one service port get.
type choices struct {
	internal Choice  // who dials the ClusterIP
	cluster  Choice  // who dials any other address from this node
	outside  *Choice // who dials any other address from elsewhere, if that is different
}

// choose applies readiness, topology and policies to the endpoints of one family.
func choose(svc *service.Service, eps []service.Endpoint, v4 bool, o *Options) choices {
	var all []service.Endpoint
	for _, e := range eps {
		if e.Addr.Addr().Is4() == v4 && !LeadsToItself(svc, e) {
			e.Ready = e.Ready || svc.NotReady && !e.Terminating
			all = append(all, e)
		}
	}
	cluster := Choice{Endpoints: addrs(nearest(usable(all), svc.Distribution, o))}
	if svc.InternalPolicy == service.Cluster && svc.ExternalPolicy == service.Cluster {
		return choices{internal: cluster, cluster: cluster}
	}
	here := slices.DeleteFunc(slices.Clone(all), func(e service.Endpoint) bool { return !local(e, o) })
	locally := Choice{Endpoints: addrs(usable(here))}
	if len(cluster.Endpoints) > 0 {
		// There are endpoints, only not here: silence lets a load balancer try elsewhere, a refusal would be final.
		locally.OnEmpty = Drop
	}
	c := choices{internal: cluster, cluster: cluster}
	if svc.InternalPolicy == service.Local {
		c.internal = locally
	}
	if svc.ExternalPolicy == service.Local && !(slices.Equal(locally.Endpoints, cluster.Endpoints) && locally.OnEmpty == cluster.OnEmpty) {
		c.outside = &locally
	}
	return c
}

// LeadsToItself reports an endpoint that is a cluster address of its own service: nobody answers there but the service.
func LeadsToItself(svc *service.Service, e service.Endpoint) bool {
	return slices.Contains(svc.ClusterIPs, e.Addr.Addr())
}

// usable are the ready endpoints or, if there are none, those that still serve while they end (KEP-1669).
func usable(eps []service.Endpoint) []service.Endpoint {
	var ready, ending []service.Endpoint
	for _, e := range eps {
		switch {
		case e.Ready:
			ready = append(ready, e)
		case e.Serving && e.Terminating:
			ending = append(ending, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return ending
}

// nearest narrows endpoints by their hints (KEP-2433, KEP-4444), where every one of them has some and one fits: a part
// that the hints leave to others must not be overloaded. Without any hints the service's own wish decides, which
// serves sources that have no controller to write hints.
func nearest(eps []service.Endpoint, d service.Distribution, o *Options) []service.Endpoint {
	hints := func(of func(service.Endpoint) []string, me string) []service.Endpoint {
		if me == "" || slices.ContainsFunc(eps, func(e service.Endpoint) bool { return len(of(e)) == 0 }) {
			return nil
		}
		return where(eps, func(e service.Endpoint) bool { return slices.Contains(of(e), me) })
	}
	if out := hints(func(e service.Endpoint) []string { return e.ForNodes }, o.Node.Name); len(out) > 0 {
		return out
	}
	if out := hints(func(e service.Endpoint) []string { return e.ForZones }, o.Zone); len(out) > 0 {
		return out
	}
	if d == service.Anywhere || slices.ContainsFunc(eps, func(e service.Endpoint) bool { return len(e.ForZones)+len(e.ForNodes) > 0 }) {
		return eps
	}
	if d == service.PreferSameNode {
		if out := where(eps, func(e service.Endpoint) bool { return local(e, o) }); len(out) > 0 {
			return out
		}
	}
	if out := where(eps, func(e service.Endpoint) bool { return o.Zone != "" && e.Zone == o.Zone }); len(out) > 0 {
		return out
	}
	return eps
}

func where(eps []service.Endpoint, keep func(service.Endpoint) bool) []service.Endpoint {
	return slices.DeleteFunc(slices.Clone(eps), func(e service.Endpoint) bool { return !keep(e) })
}

// local reports that e runs on this node: by its node's name or, where that is not said, by its address.
func local(e service.Endpoint, o *Options) bool {
	if e.Node != "" {
		return e.Node == o.Node.Name
	}
	if _, pod := o.Node.Owns(e.Addr.Addr()); pod {
		return true
	}
	return slices.Contains(o.Node.Addresses, e.Addr.Addr())
}

// addrs sorts the addresses and drops duplicates.
func addrs(eps []service.Endpoint) []netip.AddrPort {
	if len(eps) == 0 {
		return nil
	}
	out := make([]netip.AddrPort, len(eps))
	for i, e := range eps {
		out[i] = e.Addr
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// whyNot says why a claim cannot be granted whoever else asks; empty: it can.
func whyNot(c claim, o *Options) string {
	switch {
	case c.key.Addr.IsUnspecified():
		return "this node has no address that answers NodePorts of its family"
	case c.portal.Kind == ClusterIP && len(o.Nets) > 0 && !within(o.Nets, c.key.Addr):
		return fmt.Sprintf("outside the portal net %s", join(o.Nets))
	case c.portal.Kind != NodePort && slices.ContainsFunc(o.Node.PodSubnets, func(p netip.Prefix) bool { return p.Contains(c.key.Addr) }):
		return "an address of this node's pods"
	}
	return ""
}

func join(ps []netip.Prefix) string {
	s := ""
	for i, p := range ps {
		if i > 0 {
			s += ", "
		}
		s += p.String()
	}
	return s
}

// settle gives every key to its best claimant: the lowest kind, then the first service by name.
func better(a, b Portal) bool {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareNames(a.Service, b.Service)) < 0
}

func compareNames(a, b service.PortName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name.Name, b.Name.Name), cmp.Compare(a.Port, b.Port))
}

// here lists what is on the node, as far as is known: pod subnets and addresses.
func here(n node.Node) []netip.Prefix {
	out := slices.Clone(n.PodSubnets)
	for _, a := range n.Addresses {
		if _, pod := n.Owns(a); !pod {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// primaries are the first address of each family.
func primaries(as []netip.Addr) []netip.Addr {
	seen := map[bool]netip.Addr{}
	for _, a := range as {
		if _, ok := seen[a.Is4()]; !ok {
			seen[a.Is4()] = a
		}
	}
	return slices.SortedFunc(maps.Values(seen), netip.Addr.Compare)
}
