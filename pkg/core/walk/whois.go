// SPDX-License-Identifier: Apache-2.0

package walk

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// Kind says what an address is.
type Kind string

// The kinds of addresses.
const (
	IsPod      Kind = "pod"
	IsDeadPod  Kind = "dead pod"   // somebody had it, and has it no more
	IsFree     Kind = "free"       // of a pod subnet or portal net, and nobody's
	IsVIP      Kind = "service"    //
	IsProxy    Kind = "proxy port" // where portald listens for one service
	IsHostPort Kind = "host port"  // of a node, and leads to a pod
	IsHost     Kind = "host"
	IsUnknown  Kind = "unknown"
)

// Answer is what is known of an address.
type Answer struct {
	Kind   Kind     `json:"kind"`
	Title  string   `json:"title"`           // in one line
	Facts  []string `json:"facts,omitempty"` // "node: kubminion1"
	Routes []string `json:"routes"`          // the way that each host would take to it
}

// Whois tells whose an address is; port 0: not asked for. A port of a host may be several things at once.
func Whois(w World, a netip.Addr, port uint16) []Answer {
	var out []Answer
	add := func(x Answer) {
		x.Routes = w.routes(a)
		out = append(out, x)
	}
	if h, ps := w.Portal(a, port); len(ps) > 0 {
		for _, p := range ps {
			add(w.vip(h, p))
		}
	}
	for _, h := range w {
		_, own := h.Own(a)
		for _, p := range h.Portald.Portals {
			if port != 0 && own && p.ProxyPort == port {
				x := w.vip(h, p)
				x.Kind, x.Title = IsProxy, fmt.Sprintf("port %d of %s is portald's for %s", port, h.Name, p)
				add(x)
			}
		}
	}
	for _, h := range w {
		if p, m, ok := h.Published(netip.AddrPortFrom(a, port)); ok {
			x := pod(h, p, p.Addrs[0])
			x.Kind, x.Title = IsHostPort, fmt.Sprintf("port %d of %s is published for pod %s, port %d", port, h.Name, p.Short(), m.To)
			add(x)
		}
	}
	if len(out) > 0 {
		return out
	}
	add(w.who(a))
	return out
}

// who is Whois for what is no service.
func (w World) who(a netip.Addr) Answer {
	if h, p, ok := w.Pod(a); ok {
		return pod(h, p, a)
	}
	if h, ok := w.Owner(a); ok {
		l, _ := h.Own(a)
		x := Answer{Kind: IsHost, Title: fmt.Sprintf("%s is %s of %s", a, l.Name, h.Name), Facts: []string{"host: " + h.Name, "interface: " + l.Name}}
		if s := h.PodSubnets(); len(s) > 0 {
			x.Facts = append(x.Facts, "pods: "+join(s))
			if l.Kind == "bridge" {
				x.Facts = append(x.Facts, "it is the gateway of the node's pods")
			}
		}
		return x
	}
	for _, h := range w {
		for _, l := range h.Leases {
			if l.Addr == a {
				return Answer{Kind: IsDeadPod, Title: fmt.Sprintf("%s was leased to %s, which is gone", a, cmp.Or(l.Pod, "container "+l.Container)),
					Facts: []string{"node: " + h.Name, "container: " + l.Container, "the lease is stale: l3ctl ipam release " + a.String()}}
			}
		}
	}
	if h, s, ok := w.Home(a); ok {
		return Answer{Kind: IsFree, Title: fmt.Sprintf("%s is of the pods of %s (%s), and no pod has it now", a, h.Name, s), Facts: []string{"node: " + h.Name, "it may have been a pod's that is gone"}}
	}
	for _, h := range w {
		for _, n := range h.Portald.Nets {
			if n.Contains(a) {
				return Answer{Kind: IsFree, Title: fmt.Sprintf("%s is of the portal net %s, and no service has it (on that port)", a, n), Facts: []string{"nodes refuse connections to it"}}
			}
		}
	}
	for _, h := range w {
		for _, r := range h.Routed.Routes {
			if r.Prefix.Contains(a) && len(r.Via) > 0 {
				return Answer{Kind: IsPod, Title: fmt.Sprintf("%s is of the pods of another node: %s by way of %s", a, r.Prefix, join(r.Via)), Facts: []string{"that node's l3ctl knows more"}}
			}
		}
	}
	return Answer{Kind: IsUnknown, Title: a.String() + " is nothing of ours"}
}

func pod(h view.Host, p view.Pod, a netip.Addr) Answer {
	x := Answer{Kind: IsPod, Title: fmt.Sprintf("%s is pod %s on %s", a, p.Short(), h.Name), Facts: []string{
		"node: " + h.Name, "network: " + p.Network, "namespace: " + p.Netns, "veth: " + p.Veth + " on " + p.Bridge, "container: " + p.Container,
	}}
	if !p.Alive {
		x.Kind, x.Title = IsDeadPod, fmt.Sprintf("%s was pod %s on %s, which is gone", a, p.Short(), h.Name)
	}
	var names []string
	for _, c := range p.Processes {
		names = append(names, fmt.Sprintf("%s (pid %d)", c.Name, c.Pid))
	}
	if len(names) > 0 {
		x.Facts = append(x.Facts, "shares its namespace: "+strings.Join(names, ", "))
	}
	if len(p.HostPorts) > 0 {
		x.Facts = append(x.Facts, "host ports: "+join(p.HostPorts))
	}
	return x
}

// vip tells of a portal as h has it.
func (w World) vip(h view.Host, p view.Portal) Answer {
	x := Answer{Kind: IsVIP, Title: fmt.Sprintf("%s is service %s, port %d", p.VIP, p.Name(), p.Port), Facts: []string{"mode: " + p.Mode}}
	dial := fmt.Sprintf("-d %s/32 -p %s --dport %d", p.VIP, strings.ToLower(p.Protocol), p.Port)
	if p.Mode == "userspace" {
		container, host := mark.ChainPortalsContainer, mark.ChainPortalsHost
		if p.Kind == "NodePort" {
			container, host = mark.ChainNodePortContainer, mark.ChainNodePortHost
		}
		x.Facts = append(x.Facts,
			fmt.Sprintf("proxy port: %d on %s", p.ProxyPort, h.Name),
			fmt.Sprintf("rule: iptables -t nat -A %s %s -j REDIRECT --to-ports %d (from pods)", container, dial, p.ProxyPort),
			fmt.Sprintf("rule: iptables -t nat -A %s %s -j DNAT to port %d (from the node)", host, dial, p.ProxyPort))
	} else {
		x.Facts = append(x.Facts, fmt.Sprintf("rule: nft get element ip %s svc { %s . %s . %d }", mark.TableServices, p.VIP, strings.ToLower(p.Protocol), p.Port),
			fmt.Sprintf("connections: conntrack -L -d %s -p %s --orig-port-dst %d", p.VIP, strings.ToLower(p.Protocol), p.Port))
	}
	if t := p.Traffic; t != nil {
		x.Facts = append(x.Facts, fmt.Sprintf("carried: %d connections, %d of them open, %d bytes in, %d out; %d retries, %d failed, %d over a limit",
			t.Accepted, t.Active, t.BytesIn, t.BytesOut, t.Retries, t.Failed, t.Limited))
	}
	for _, e := range p.Endpoints {
		x.Facts = append(x.Facts, fmt.Sprintf("endpoint: %s, %s", e, w.name(e.Addr()))+health(p.Traffic, e))
	}
	if len(p.Endpoints) == 0 {
		x.Facts = append(x.Facts, "endpoints: none, connections are refused")
	}
	return x
}

// health is how the proxy finds an endpoint.
func health(t *traffic.Stats, e netip.AddrPort) string {
	if t == nil {
		return ""
	}
	for _, x := range t.Endpoints {
		if x.Addr == e {
			return fmt.Sprintf(", %s, %d open", x.State, x.Active)
		}
	}
	return ""
}

// routes are the ways that the asking host and the switch would take.
func (w World) routes(a netip.Addr) []string {
	var out []string
	for i, h := range w {
		if i > 0 && !w.IsSwitch(h) {
			continue
		}
		if _, own := h.Own(a); own {
			out = append(out, h.Name+": it is its own")
		} else if r, ok := h.Lookup(a); ok {
			out = append(out, h.Name+": "+r.String())
		} else {
			out = append(out, h.Name+": no route")
		}
	}
	if !slices.ContainsFunc(w, w.IsSwitch) {
		out = append(out, "the switch: not seen from here (l3ctl observe on it, or --lab)")
	}
	return out
}

// IsSwitch reports that h is where the sessions of other hosts end, and runs no pods.
func (w World) IsSwitch(h view.Host) bool {
	if len(h.PodSubnets()) > 0 {
		return false
	}
	for _, n := range w {
		for _, s := range n.Routed.Sessions {
			if _, own := h.Own(s.Address); own && n.Name != h.Name {
				return true
			}
		}
	}
	return false
}

func join[T fmt.Stringer](in []T) string {
	var s []string
	for _, x := range in {
		s = append(s, x.String())
	}
	return strings.Join(s, " ")
}
