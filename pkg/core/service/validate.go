// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"net/netip"
)

// longestLabel is the most that Kubernetes lets the name of a Service, a namespace or a port have (RFC 1123: a DNS label).
const longestLabel = 63

// Validate reports everything in s that no data plane could program, joined, each with its place.
func (s Service) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if s.Name.Name == "" {
		bad("metadata.name: missing")
	}
	label := func(field, name string) {
		if n := len(name); n > longestLabel {
			bad("%s: %d bytes; %d are the most", field, n, longestLabel)
		} else if name != "" && !isLabel(name) {
			bad("%s: %q is not a DNS label: a-z, 0-9 and, within, -", field, name)
		}
	}
	label("metadata.name", s.Name.Name)
	label("metadata.namespace", s.Name.Namespace)
	addrs := func(field string, as []netip.Addr, can func(netip.Addr) bool) {
		for i, a := range as {
			if !can(a) {
				bad("%s[%d]: %s cannot be a service address", field, i, a)
			}
		}
	}
	addrs("spec.clusterIPs", s.ClusterIPs, usable)
	addrs("spec.externalIPs", s.ExternalIPs, reachable)
	addrs("status.loadBalancer.ingress", s.LoadBalancers, reachable)
	for i, r := range s.SourceRanges {
		if !r.IsValid() {
			bad("spec.loadBalancerSourceRanges[%d]: not a prefix", i)
		}
	}
	if s.Affinity < 0 {
		bad("spec.sessionAffinityConfig: a timeout of %s is negative", s.Affinity)
	}
	names, numbers := map[string]int{}, map[Port]int{}
	for i, p := range s.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		label(at+".name", p.Name)
		if p.Port == 0 {
			bad("%s.port: 0 is not a port", at)
		}
		if p.Protocol != TCP && p.Protocol != UDP && p.Protocol != SCTP {
			bad("%s.protocol: %s is not TCP, UDP or SCTP", at, p.Protocol)
		}
		if j, ok := names[p.Name]; ok {
			bad("%s.name: %q is also the name of spec.ports[%d]", at, p.Name, j)
		}
		number := Port{Protocol: p.Protocol, Port: p.Port}
		if j, ok := numbers[number]; ok {
			bad("%s: %s %d is also spec.ports[%d]", at, p.Protocol, p.Port, j)
		}
		names[p.Name], numbers[number] = i, i
	}
	return errors.Join(errs...)
}

// isLabel reports a DNS label, its length aside.
func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && i > 0 && i < len(s)-1) {
			return false
		}
	}
	return true
}

// usable reports that a can be dialled: loopback, unspecified, multicast, link-local, broadcast and scoped addresses cannot.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && a.Zone() == "" &&
		!a.Is4In6() && !(a.Is4() && a.As4()[0] == 0) && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// reachable reports that others can dial a too. Clusters that are short of addresses take their own from 240.0.0.0/4, which
// routers elsewhere do not carry (RFC 1112).
func reachable(a netip.Addr) bool { return usable(a) && !(a.Is4() && a.As4()[0] >= 240) }
