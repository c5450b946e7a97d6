// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Slice is the part of a Service's endpoints that one EndpointSlice (or one v1 Endpoints) holds.
type Slice struct {
	Service service.Name
	Ports   []SlicePort
}

// SlicePort is one port of a Slice with the endpoints that serve it.
type SlicePort struct {
	Name      string
	Protocol  service.Protocol
	Endpoints []service.Endpoint
}

// EndpointSlice converts o. ok is false, without an error, for slices that no data path can use: of address type FQDN,
// of a headless Service (by label), or of no Service. Of an endpoint's addresses only the first counts, as the API says.
func EndpointSlice(o *discovery.EndpointSlice) (s Slice, ok bool, err error) {
	name := o.Labels[discovery.LabelServiceName]
	if _, headless := o.Labels[v1.IsHeadlessService]; headless || name == "" || o.AddressType == discovery.AddressTypeFQDN {
		return Slice{}, false, nil
	}
	var p problems
	s.Service = service.Name{Namespace: namespace(o.Namespace), Name: name}
	var eps []service.Endpoint
	for i, e := range o.Endpoints {
		at := fmt.Sprintf("endpoints[%d].addresses", i)
		if len(e.Addresses) == 0 {
			p.add(at, "missing")
			continue
		}
		ep := conditions(e)
		ep.Addr = netip.AddrPortFrom(p.endpointAddr(at+"[0]", e.Addresses[0], o.AddressType), 0)
		eps = append(eps, ep)
	}
	for i, sp := range o.Ports {
		if sp.Port == nil { // "all ports": has no meaning for a Service
			continue
		}
		at := fmt.Sprintf("ports[%d]", i)
		proto := v1.ProtocolTCP
		if sp.Protocol != nil {
			proto = *sp.Protocol
		}
		out := SlicePort{Name: deref(sp.Name), Protocol: p.protocol(at+".protocol", proto)}
		out.Endpoints = onPort(eps, p.port(at+".port", *sp.Port, false))
		s.Ports = append(s.Ports, out)
	}
	if err := errors.Join(p.errs...); err != nil {
		return Slice{}, false, err
	}
	return s, true, nil
}

// Endpoints converts the older v1 Endpoints, one Slice for each subset. The object names its Service by its own name.
func Endpoints(o *v1.Endpoints) ([]Slice, error) {
	var p problems
	var out []Slice
	for i, sub := range o.Subsets {
		at := fmt.Sprintf("subsets[%d]", i)
		var eps []service.Endpoint
		read := func(field string, as []v1.EndpointAddress, ready bool) {
			for j, a := range as {
				addr := p.endpointAddr(fmt.Sprintf("%s.%s[%d].ip", at, field, j), a.IP, "")
				eps = append(eps, service.Endpoint{
					Addr: netip.AddrPortFrom(addr, 0), Ready: ready, Serving: ready, Node: deref(a.NodeName),
				})
			}
		}
		read("addresses", sub.Addresses, true)
		read("notReadyAddresses", sub.NotReadyAddresses, false)
		s := Slice{Service: service.Name{Namespace: namespace(o.Namespace), Name: o.Name}}
		for j, sp := range sub.Ports {
			pat := fmt.Sprintf("%s.ports[%d]", at, j)
			s.Ports = append(s.Ports, SlicePort{
				Name: sp.Name, Protocol: p.protocol(pat+".protocol", sp.Protocol),
				Endpoints: onPort(eps, p.port(pat+".port", sp.Port, false)),
			})
		}
		out = append(out, s)
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// conditions reads an endpoint's state: what is not said is ready, serving as far as ready, and not terminating.
func conditions(e discovery.Endpoint) service.Endpoint {
	ep := service.Endpoint{Ready: true, Node: deref(e.NodeName), Zone: deref(e.Zone)}
	if c := e.Conditions.Ready; c != nil {
		ep.Ready = *c
	}
	ep.Serving = ep.Ready
	if c := e.Conditions.Serving; c != nil {
		ep.Serving = *c
	}
	if c := e.Conditions.Terminating; c != nil {
		ep.Terminating = *c
	}
	if h := e.Hints; h != nil {
		for _, z := range h.ForZones {
			ep.ForZones = append(ep.ForZones, z.Name)
		}
		for _, n := range h.ForNodes {
			ep.ForNodes = append(ep.ForNodes, n.Name)
		}
	}
	return ep
}

func (p *problems) endpointAddr(path, s string, typ discovery.AddressType) netip.Addr {
	a := p.addr(path, s)
	switch {
	case !a.IsValid():
	case typ == discovery.AddressTypeIPv4 && !a.Is4(), typ == discovery.AddressTypeIPv6 && !a.Is6():
		p.add(path, "%s is not an %s address", a, typ)
	case a.IsLoopback(), a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.Zone() != "":
		p.add(path, "%s cannot be an endpoint", a)
	}
	return a
}

func onPort(eps []service.Endpoint, port uint16) []service.Endpoint {
	out := slices.Clone(eps)
	for i := range out {
		out[i].Addr = netip.AddrPortFrom(out[i].Addr.Addr(), port)
	}
	return out
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
