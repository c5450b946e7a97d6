// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"net/netip"
)

// longestName is the most that Kubernetes lets any object's name have (RFC 1123: a DNS subdomain).
const longestName = 253

// Validate reports everything in s that no data plane could program, joined, each with its place.
func (s Service) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if s.Name.Name == "" {
		bad("metadata.name: missing")
	}
	if n := len(s.Name.Name); n > longestName {
		bad("metadata.name: %d bytes; %d are the most", n, longestName)
	}
	addrs := func(field string, as []netip.Addr) {
		for i, a := range as {
			if !usable(a) {
				bad("%s[%d]: %s cannot be a service address", field, i, a)
			}
		}
	}
	addrs("spec.clusterIPs", s.ClusterIPs)
	addrs("spec.externalIPs", s.ExternalIPs)
	addrs("status.loadBalancer.ingress", s.LoadBalancers)
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

// usable reports that a can be dialled: loopback, unspecified, multicast and scoped addresses cannot.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.Zone() == "" && !a.Is4In6()
}
