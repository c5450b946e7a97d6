// SPDX-License-Identifier: Apache-2.0

// Package walk explains addresses and paths from views of hosts: whose an address is, and which way a connection takes,
// step by step, with a reason for each change of an address. It predicts; it sends nothing.
package walk

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// World is the hosts that were seen, the one that the question is asked on first.
type World []view.Host

// At is the host called name.
func (w World) At(name string) (view.Host, bool) {
	i := slices.IndexFunc(w, func(h view.Host) bool { return h.Name == name })
	if i < 0 {
		return view.Host{}, false
	}
	return w[i], true
}

// Owner is the host that has the address on one of its interfaces.
func (w World) Owner(a netip.Addr) (view.Host, bool) {
	i := slices.IndexFunc(w, func(h view.Host) bool { _, ok := h.Own(a); return ok })
	if i < 0 {
		return view.Host{}, false
	}
	return w[i], true
}

// Pod is the living pod that has the address, or the dead one that had it.
func (w World) Pod(a netip.Addr) (view.Host, view.Pod, bool) {
	var host view.Host
	var pod view.Pod
	found := false
	for _, h := range w {
		if p, ok := h.PodAt(a); ok && (!found || p.Alive) {
			host, pod, found = h, p, true
		}
	}
	return host, pod, found
}

// Home is the host whose pod subnet holds the address.
func (w World) Home(a netip.Addr) (view.Host, netip.Prefix, bool) {
	for _, h := range w {
		for _, s := range h.PodSubnets() {
			if s.Contains(a) {
				return h, s, true
			}
		}
	}
	return view.Host{}, netip.Prefix{}, false
}

// Portal is the portal at an address and port; port 0 is any. It looks at the first host that has one there.
func (w World) Portal(a netip.Addr, port uint16) (view.Host, []view.Portal) {
	for _, h := range w {
		var out []view.Portal
		for _, p := range h.Portald.Portals {
			if p.VIP == a && (port == 0 || p.Port == port) {
				out = append(out, p)
			}
		}
		if len(out) > 0 {
			return h, out
		}
	}
	return view.Host{}, nil
}

// Service finds the portals of a service by name, with or without namespace.
func (w World) Service(name string) []view.Portal {
	for _, h := range w {
		var out []view.Portal
		for _, p := range h.Portald.Portals {
			if p.Service == name || strings.TrimPrefix(p.Service, "default/") == name || p.Name() == name {
				out = append(out, p)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// Table is what portald has programmed on the host, as the oracle takes it.
func Table(h view.Host) portal.Table {
	t := portal.Table{Portals: map[portal.Key]portal.Portal{}, Nets: h.Portald.Nets}
	for _, p := range h.Portald.Portals {
		namespace, name, _ := strings.Cut(p.Service, "/")
		x := portal.Portal{
			Service:   service.PortName{Name: service.Name{Namespace: namespace, Name: name}, Port: p.PortName},
			Endpoints: p.Endpoints, OnEmpty: onEmpty(p.Drops), Sources: p.Sources,
		}
		for _, k := range []portal.Kind{portal.LoadBalancer, portal.ExternalIP, portal.NodePort} {
			if k.String() == p.Kind {
				x.Kind = k
			}
		}
		if p.Outside != nil {
			x.Outside = &portal.Choice{Endpoints: p.Outside.Endpoints, OnEmpty: onEmpty(p.Outside.Drops)}
		}
		t.Portals[portal.Key{Addr: p.VIP, Protocol: protocol(p.Protocol), Port: p.Port}] = x
	}
	t.Pods = h.PodSubnets()
	t.Here = append(t.Here, t.Pods...)
	for _, l := range h.Links {
		for _, a := range l.Addrs {
			t.Here = append(t.Here, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		}
	}
	return t
}

func onEmpty(drops bool) portal.Empty {
	if drops {
		return portal.Drop
	}
	return portal.Reject
}

func protocol(name string) service.Protocol {
	for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if strings.EqualFold(p.String(), name) {
			return p
		}
	}
	return service.TCP
}

// name is what a person calls the address: "pod web8080-1 on kubminion1", "kubminion1", or that it was not seen.
func (w World) name(a netip.Addr) string {
	if h, p, ok := w.Pod(a); ok && p.Alive {
		return fmt.Sprintf("pod %s on %s", p.Short(), h.Name)
	}
	if h, ok := w.Owner(a); ok {
		return h.Name
	}
	return "not on a host that was seen"
}
