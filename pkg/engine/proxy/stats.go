// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// Stats counts the work of one portal since it was opened.
type Stats struct {
	Accepted  uint64          `json:"accepted"` // TCP connections or UDP sessions
	Active    int64           `json:"active"`   // of these, still open
	Retries   uint64          `json:"retries"`  // attempts beyond the first to connect to an endpoint
	Failed    uint64          `json:"failed"`   // connections that no endpoint took
	Limited   uint64          `json:"limited"`  // connections over a limit, or from where none may come
	Ejected   uint64          `json:"ejected"`  // times that an endpoint was put to rest
	BytesIn   uint64          `json:"bytesIn"`  // from clients to endpoints; a TCP connection counts when that direction ends
	BytesOut  uint64          `json:"bytesOut"` // from endpoints to clients
	Endpoints []EndpointStats `json:"endpoints"`
}

// EndpointStats is what the proxy knows of one endpoint of a portal.
type EndpointStats struct {
	Addr   netip.AddrPort `json:"addr"`
	State  string         `json:"state"` // up, down (a check says so), resting (it refused connections)
	Active int64          `json:"active"`
}

// counters are the numbers of Stats that many connections move at once.
type counters struct {
	accepted, retries, failed, limited, ejected, in, out atomic.Uint64
	active                                               atomic.Int64
}

func (f *front) stats() Stats {
	c := &f.count
	s := Stats{
		Accepted: c.accepted.Load(), Active: c.active.Load(), Retries: c.retries.Load(), Failed: c.failed.Load(),
		Limited: c.limited.Load(), Ejected: c.ejected.Load(), BytesIn: c.in.Load(), BytesOut: c.out.Load(), Endpoints: []EndpointStats{},
	}
	for _, b := range f.target.Load().backends {
		s.Endpoints = append(s.Endpoints, EndpointStats{Addr: b.addr, State: b.state(), Active: b.active.Load()})
	}
	slices.SortFunc(s.Endpoints, func(a, b EndpointStats) int { return a.Addr.Compare(b.Addr) })
	return s
}
