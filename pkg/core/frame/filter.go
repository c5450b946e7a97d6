// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"net/netip"
	"slices"
)

// Filter says which packets belong to a pod: its own, and those of a proxy of its node that speaks for it.
type Filter struct {
	Pod      []netip.Addr
	Host     []netip.Addr // the node's own addresses
	Services []Service    // that the pod may ask
	Only     []Service    // not empty: nothing but these
	Port     uint16       // not 0: only connections to this port, on either leg
}

// Keep decides.
func (f Filter) Keep(p Packet) bool {
	pod := slices.ContainsFunc(f.Pod, p.Involves)
	proxy := slices.ContainsFunc(f.Host, p.Involves) && f.service(f.Services, p, false) != nil
	if !pod && !proxy {
		return false
	}
	if len(f.Only) > 0 && f.service(f.Only, p, true) == nil {
		return false
	}
	if f.Port == 0 || p.Has(f.Port) {
		return true
	}
	s := f.service(f.Services, p, true)
	return s != nil && (s.At.Port() == f.Port || slices.ContainsFunc(s.Endpoints, func(e netip.AddrPort) bool { return e.Port() == f.Port }))
}

// service is the first that one of the packet's ends is an endpoint of, or, with vip, the address of.
func (f Filter) service(all []Service, p Packet, vip bool) *Service {
	for i, s := range all {
		if slices.Contains(s.Endpoints, p.Src) || slices.Contains(s.Endpoints, p.Dst) || vip && (s.At == p.Src || s.At == p.Dst) {
			return &all[i]
		}
	}
	return nil
}
