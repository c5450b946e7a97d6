// SPDX-License-Identifier: Apache-2.0

package proxy

import "sync/atomic"

// Stats counts the work of one portal.
type Stats struct {
	Accepted uint64 `json:"accepted"` // TCP connections or UDP sessions
	Active   int64  `json:"active"`   // of these, still open
	Retries  uint64 `json:"retries"`  // attempts beyond the first to connect to an endpoint
	Failed   uint64 `json:"failed"`   // connections that no endpoint took
	BytesIn  uint64 `json:"bytesIn"`  // from clients to endpoints; a TCP connection is counted when that direction ends
	BytesOut uint64 `json:"bytesOut"` // from endpoints to clients
}

// counters are Stats that many connections may move at once.
type counters struct {
	accepted, retries, failed, in, out atomic.Uint64
	active                             atomic.Int64
}

func (c *counters) stats() Stats {
	return Stats{
		Accepted: c.accepted.Load(), Active: c.active.Load(), Retries: c.retries.Load(), Failed: c.failed.Load(),
		BytesIn: c.in.Load(), BytesOut: c.out.Load(),
	}
}
