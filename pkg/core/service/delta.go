// SPDX-License-Identifier: Apache-2.0

package service

import (
	"maps"
	"slices"
)

// State is one Service and its endpoints at one moment. It is immutable once published.
type State struct {
	Service   Service
	Endpoints [][]Endpoint // of each of the Service's Ports, in their order; fewer: the rest have none
}

// Of returns the endpoints of the Service's i-th port.
func (s *State) Of(i int) []Endpoint {
	if i >= len(s.Endpoints) {
		return nil
	}
	return s.Endpoints[i]
}

// Delta is what a source says has changed: the new State of each Service that is not as before, nil for one that is gone.
// To say the same again is allowed, and costs a comparison.
type Delta map[Name]*State

// Merge takes in what came after d.
func (d Delta) Merge(later Delta) { maps.Copy(d, later) }

// Delta is everything in s, as what has changed since there was nothing.
func (s Snapshot) Delta() Delta {
	d := make(Delta, len(s.Services))
	for name, svc := range s.Services {
		st := &State{Service: svc, Endpoints: make([][]Endpoint, len(svc.Ports))}
		for i, p := range svc.Ports {
			st.Endpoints[i] = s.Endpoints[PortName{Name: name, Port: p.Name}]
		}
		d[name] = st
	}
	return d
}

// Equal reports that both states mean the same. Slices that are the very same are not looked into.
func (s *State) Equal(o *State) bool {
	if s == o {
		return true
	}
	a, b := &s.Service, &o.Service
	if a.Name != b.Name || !same(a.ClusterIPs, b.ClusterIPs) || !same(a.ExternalIPs, b.ExternalIPs) || !same(a.LoadBalancers, b.LoadBalancers) ||
		!same(a.SourceRanges, b.SourceRanges) || !same(a.Ports, b.Ports) || !maps.Equal(a.Annotations, b.Annotations) ||
		a.InternalPolicy != b.InternalPolicy || a.ExternalPolicy != b.ExternalPolicy || a.Distribution != b.Distribution ||
		a.NotReady != b.NotReady || a.Affinity != b.Affinity || a.HealthPort != b.HealthPort {
		return false
	}
	for i := range a.Ports {
		if !sameFunc(s.Of(i), o.Of(i), Endpoint.Equal) {
			return false
		}
	}
	return true
}

// Equal reports that both are the same in every respect.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.Addr == o.Addr && e.Ready == o.Ready && e.Serving == o.Serving && e.Terminating == o.Terminating &&
		e.Node == o.Node && e.Zone == o.Zone && slices.Equal(e.ForZones, o.ForZones) && slices.Equal(e.ForNodes, o.ForNodes)
}

func same[E comparable](a, b []E) bool {
	return sameFunc(a, b, func(a, b E) bool { return a == b })
}

func sameFunc[E any](a, b []E, equal func(a, b E) bool) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, equal))
}

// Snapshot is what a Delta that began with nothing amounts to.
func (d Delta) Snapshot() Snapshot {
	s := Snapshot{Services: make(map[Name]Service, len(d)), Endpoints: make(map[PortName][]Endpoint, len(d))}
	for name, st := range d {
		if st == nil {
			continue
		}
		s.Services[name] = st.Service
		for i, p := range st.Service.Ports {
			if eps := st.Of(i); len(eps) > 0 {
				s.Endpoints[PortName{Name: name, Port: p.Name}] = eps
			}
		}
	}
	return s
}
