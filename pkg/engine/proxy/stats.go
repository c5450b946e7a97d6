// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/traffic"
)

// counters are the numbers of traffic.Stats that many connections move at once.
type counters struct {
	accepted, retries, failed, limited, ejected, in, out atomic.Uint64
	active                                               atomic.Int64
}

func (f *front) stats() traffic.Stats {
	c := &f.count
	s := traffic.Stats{
		Accepted: c.accepted.Load(), Active: c.active.Load(), Retries: c.retries.Load(), Failed: c.failed.Load(),
		Limited: c.limited.Load(), Ejected: c.ejected.Load(), BytesIn: c.in.Load(), BytesOut: c.out.Load(), Endpoints: []traffic.Endpoint{},
	}
	now := time.Now()
	for _, b := range f.target.Load().backends {
		s.Endpoints = append(s.Endpoints, traffic.Endpoint{Addr: b.Addr, State: b.state(now), Active: b.Active.Load()})
	}
	slices.SortFunc(s.Endpoints, func(a, b traffic.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return s
}
