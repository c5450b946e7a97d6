// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Merge returns the endpoints of one port of a Service, out of all slices that hold some. A slice's port belongs to the
// Service's port of the same name and protocol. An endpoint that stands in two slices, as it does for a moment while
// the controller moves it, counts once: the readier of the two wins.
func Merge(p service.Port, parts []Slice) []service.Endpoint {
	m := merger{port: p}
	m.add(parts)
	return m.eps
}

func (e *entry) merge(p service.Port) []service.Endpoint {
	m := merger{port: p}
	for _, part := range e.parts {
		m.add(part.slices)
	}
	return m.eps
}

// merger gathers endpoints. What stands in one slice alone is not copied.
type merger struct {
	port service.Port
	eps  []service.Endpoint
	at   map[netip.AddrPort]int // where each is in eps; nil while nobody needs to know
	own  bool                   // eps is ours to change
}

func (m *merger) add(parts []Slice) {
	for _, sl := range parts {
		for _, sp := range sl.Ports {
			if sp.Name != m.port.Name || sp.Protocol != m.port.Protocol || len(sp.Endpoints) == 0 {
				continue
			}
			if m.eps == nil && distinct(sp.Endpoints) {
				m.eps = slices.Clip(sp.Endpoints)
				continue
			}
			m.index(len(sp.Endpoints))
			for _, e := range sp.Endpoints {
				m.one(e)
			}
		}
	}
}

// index makes eps ours, and knows its addresses.
func (m *merger) index(more int) {
	if m.own {
		return
	}
	m.own, m.at = true, make(map[netip.AddrPort]int, len(m.eps)+more)
	m.eps = append(make([]service.Endpoint, 0, len(m.eps)+more), m.eps...)
	for i, e := range m.eps {
		m.at[e.Addr] = i
	}
}

func (m *merger) one(e service.Endpoint) {
	i, dup := m.at[e.Addr]
	switch {
	case !dup:
		m.at[e.Addr] = len(m.eps)
		m.eps = append(m.eps, e)
	case readiness(e) > readiness(m.eps[i]):
		m.eps[i] = e
	}
}

// distinct reports that no address stands twice in a list, where that is quick to see.
func distinct(eps []service.Endpoint) bool {
	if len(eps) > 8 {
		return false
	}
	for i, e := range eps {
		for _, o := range eps[:i] {
			if o.Addr == e.Addr {
				return false
			}
		}
	}
	return true
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
