// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/rawjson"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

// portMapping is an entry of the capability argument portMappings (CNI conventions).
type portMapping struct {
	HostPort, ContainerPort int
	Protocol, HostIP        string
}

// decode reads an entry. By hand, because reflection on a type costs its first and only use more than all else in ADD.
func decode(v rawjson.Value) (p portMapping, err error) {
	keys, err := v.Object()
	if err != nil {
		return p, err
	}
	for _, f := range []struct {
		key  string
		into any
	}{{"hostPort", &p.HostPort}, {"containerPort", &p.ContainerPort}, {"protocol", &p.Protocol}, {"hostIP", &p.HostIP}} {
		if err := keys.Get(f.key).Decode(f.into); err != nil {
			return p, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	return p, nil
}

// mappings are the ports that the runtime asks for, led to the pod's address of each family that fits. An entry without
// a host port publishes nothing and is passed over. Every mistake is reported, each with its place.
func mappings(c *cni.Call) ([]nft.Mapping, error) {
	var list rawjson.Value
	_, err := c.Runtime("portMappings", &list)
	asked, aerr := list.Array()
	if err = errors.Join(err, aerr); err != nil {
		return nil, cni.Errorf(cni.CodeInvalidConfig, "runtimeConfig.portMappings: %w", err)
	}
	var out []nft.Mapping
	var errs []error
	for i, v := range asked {
		p, err := decode(v)
		var ms []nft.Mapping
		if err == nil && p.HostPort != 0 {
			ms, err = p.parse(c.Net.PrevResult)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("runtimeConfig.portMappings[%d].%w", i, err))
		}
		out = append(out, ms...)
	}
	for i, m := range out {
		for _, n := range out[:i] {
			if m.HostIP == n.HostIP && m.Protocol == n.Protocol && m.HostPort == n.HostPort && m.To != n.To {
				errs = append(errs, fmt.Errorf("runtimeConfig.portMappings: %s port %d of the node is asked for twice, for ports %d and %d", m.Protocol, m.HostPort, n.To.Port(), m.To.Port()))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, cni.Errorf(cni.CodeInvalidConfig, "%w", err)
	}
	return out, nil
}

func (p portMapping) parse(prev *cni.Result) ([]nft.Mapping, error) {
	proto := map[string]service.Protocol{"": service.TCP, "tcp": service.TCP, "udp": service.UDP, "sctp": service.SCTP}[strings.ToLower(p.Protocol)]
	switch {
	case p.HostPort < 0 || p.HostPort > 65535:
		return nil, fmt.Errorf("hostPort: %d is not a port", p.HostPort)
	case p.ContainerPort < 1 || p.ContainerPort > 65535:
		return nil, fmt.Errorf("containerPort: %d is not a port", p.ContainerPort)
	case proto == 0:
		return nil, fmt.Errorf("protocol: %q is not tcp, udp or sctp", p.Protocol)
	}
	var ip netip.Addr // zero: any address of any family
	if p.HostIP != "" {
		var err error
		if ip, err = netip.ParseAddr(p.HostIP); err != nil {
			return nil, fmt.Errorf("hostIP: %q is not an address", p.HostIP)
		}
		ip = ip.Unmap()
	}
	var out []nft.Mapping
	for _, pod := range podAddrs(prev) {
		if ip.IsValid() && ip.Is4() != pod.Is4() {
			continue
		}
		m := nft.Mapping{
			HostIP: ip, Protocol: proto, HostPort: uint16(p.HostPort), //nolint:gosec // checked above
			To: netip.AddrPortFrom(pod, uint16(p.ContainerPort)), //nolint:gosec // checked above
		}
		switch {
		case ip.IsValid():
		case pod.Is4():
			m.HostIP = netip.IPv4Unspecified()
		default:
			m.HostIP = netip.IPv6Unspecified()
		}
		out = append(out, m)
	}
	if len(out) == 0 && !ip.IsValid() {
		return nil, errors.New("hostPort: the pod has no address to lead it to")
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("hostIP: the pod has no address of the family of %s", ip)
	}
	return out, nil
}

// podAddrs are the pod's first address of each family.
func podAddrs(r *cni.Result) []netip.Addr {
	var out []netip.Addr
	have := map[bool]bool{}
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(r.Interfaces) && r.Interfaces[*i].Sandbox == "" {
			continue // an address of the node
		}
		if a := ip.Address.Addr().Unmap(); !have[a.Is4()] {
			have[a.Is4()] = true
			out = append(out, a)
		}
	}
	return out
}
