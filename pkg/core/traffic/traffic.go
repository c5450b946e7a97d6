// SPDX-License-Identifier: Apache-2.0

// Package traffic counts what portals have carried.
package traffic

import "net/netip"

// Stats counts the work of one portal since it was opened.
type Stats struct {
	Accepted  uint64     `json:"accepted"` // TCP connections or UDP sessions
	Active    int64      `json:"active"`   // of these, still open
	Retries   uint64     `json:"retries"`  // attempts beyond the first to connect to an endpoint
	Failed    uint64     `json:"failed"`   // connections that no endpoint took
	Limited   uint64     `json:"limited"`  // connections over a limit, or from where none may come
	Ejected   uint64     `json:"ejected"`  // times that an endpoint was put to rest
	BytesIn   uint64     `json:"bytesIn"`  // from clients to endpoints; a TCP connection counts when that direction ends
	BytesOut  uint64     `json:"bytesOut"` // from endpoints to clients
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is what the proxy knows of one endpoint of a portal.
type Endpoint struct {
	Addr   netip.AddrPort `json:"addr"`
	State  State          `json:"state"`
	Active int64          `json:"active"`
}

// State says whether an endpoint is used.
type State string

// The states of an endpoint.
const (
	Up      State = "up"
	Down    State = "down"    // a check says so
	Resting State = "resting" // it refused connections
)

// Usable counts the endpoints that are used.
func (s Stats) Usable() (n int) {
	for _, e := range s.Endpoints {
		if e.State == Up {
			n++
		}
	}
	return n
}
