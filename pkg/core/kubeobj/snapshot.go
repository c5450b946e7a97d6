// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Snapshot puts Services and the slices of their endpoints together. Slices without a Service are left out.
func Snapshot(svcs []service.Service, slices []Slice) service.Snapshot {
	s := service.Snapshot{
		Services:  make(map[service.Name]service.Service, len(svcs)),
		Endpoints: make(map[service.PortName][]service.Endpoint, len(svcs)),
	}
	for _, svc := range svcs {
		s.Services[svc.Name] = svc
	}
	of := make(map[service.Name][]Slice, len(svcs))
	for _, sl := range slices {
		of[sl.Service] = append(of[sl.Service], sl)
	}
	for name, svc := range s.Services {
		for port, eps := range Merge(svc, of[name]) {
			s.Endpoints[port] = eps
		}
	}
	return s
}

// Merge returns the endpoints of each port of svc, out of all slices that hold some. A slice's port belongs to the
// Service's port of the same name and protocol. An endpoint that stands in two slices, as it does for a moment while
// the controller moves it, counts once: the readier of the two wins.
func Merge(svc service.Service, slices []Slice) map[service.PortName][]service.Endpoint {
	out := make(map[service.PortName][]service.Endpoint, len(svc.Ports))
	for _, p := range svc.Ports {
		var eps []service.Endpoint
		at := map[netip.AddrPort]int{}
		for _, sl := range slices {
			for _, sp := range sl.Ports {
				if sp.Name != p.Name || sp.Protocol != p.Protocol {
					continue
				}
				for _, e := range sp.Endpoints {
					i, dup := at[e.Addr]
					switch {
					case !dup:
						at[e.Addr] = len(eps)
						eps = append(eps, e)
					case readiness(e) > readiness(eps[i]):
						eps[i] = e
					}
				}
			}
		}
		if eps != nil {
			out[service.PortName{Name: svc.Name, Port: p.Name}] = eps
		}
	}
	return out
}

func readiness(e service.Endpoint) int {
	switch {
	case e.Ready && !e.Terminating:
		return 3
	case e.Ready:
		return 2
	case e.Serving:
		return 1
	}
	return 0
}
