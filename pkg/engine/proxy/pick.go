// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// picker chooses the endpoint of one connection. It is called from many goroutines; from is never empty, must not be
// changed, and holds only endpoints that may be tried now.
type picker interface {
	pick(client netip.Addr, from []*backend) *backend
}

// roundRobin gives each endpoint its turn.
type roundRobin struct{ turn atomic.Uint64 }

func (r *roundRobin) pick(_ netip.Addr, from []*backend) *backend {
	return from[(r.turn.Add(1)-1)%uint64(len(from))]
}

// without returns the backends that are not in tried.
func without(all, tried []*backend) []*backend {
	return slices.DeleteFunc(slices.Clone(all), func(b *backend) bool { return slices.Contains(tried, b) })
}
