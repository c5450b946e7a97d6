// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/balance"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// picker chooses the endpoint of one connection. It is called from many goroutines; from is never empty, must not be
// changed, and holds only endpoints that may be tried now.
type picker interface {
	pick(client netip.Addr, from []*backend) *backend
}

// newPicker returns the picker that the settings ask for. Maglev needs none: see group.
func newPicker(tune tuning.Settings, affinity time.Duration) picker {
	s := scales{uneven: tune.Weights != "" || tune.SlowStart > 0, window: tune.SlowStart}
	var p picker
	switch tune.Balance {
	case tuning.LeastConnections:
		p = &leastConnections{scales: s}
	case tuning.RandomTwo:
		p = randomTwo{s}
	default:
		p = &roundRobin{scales: s}
	}
	if affinity > 0 {
		p = &sticky{of: p, timeout: affinity, seen: map[netip.Addr]visit{}}
	}
	return p
}

// scales weigh endpoints.
type scales struct {
	uneven bool          // they may differ
	window time.Duration // slow start
}

// share is what an endpoint weighs now.
func (s scales) share(b *backend) float64 {
	if !s.uneven {
		return 1
	}
	return balance.Share(int(b.weight.Load()), time.Since(b.since), s.window)
}

// lot decides by chance, in proportion to their shares, whether it is the turn of one endpoint among others.
func (s scales) lot(from []*backend) func(*backend) bool {
	if !s.uneven {
		return func(*backend) bool { return true }
	}
	top := 0.0
	for _, b := range from {
		top = max(top, s.share(b))
	}
	return func(b *backend) bool { return rand.Float64()*top <= s.share(b) }
}

// busy is how much an endpoint has to do for its share; with equal shares, one connection more than it has.
func (s scales) busy(b *backend) float64 { return float64(b.active.Load()+1) / s.share(b) }

// roundRobin gives each endpoint its turn.
type roundRobin struct {
	scales
	turn atomic.Uint64
}

func (r *roundRobin) pick(_ netip.Addr, from []*backend) *backend {
	wins := r.lot(from)
	for {
		if b := from[(r.turn.Add(1)-1)%uint64(len(from))]; wins(b) {
			return b
		}
	}
}

// leastConnections takes the least busy endpoint, in turn among equals.
type leastConnections struct {
	scales
	turn atomic.Uint64
}

func (l *leastConnections) pick(_ netip.Addr, from []*backend) *backend {
	start := l.turn.Add(1) - 1
	best := from[start%uint64(len(from))]
	least := l.busy(best)
	for i := range uint64(len(from)) {
		b := from[(start+i)%uint64(len(from))]
		if busy := l.busy(b); busy < least {
			best, least = b, busy
		}
	}
	return best
}

// randomTwo takes the less busy of two endpoints at random: nearly as even as leastConnections, without looking at all.
type randomTwo struct{ scales }

func (r randomTwo) pick(_ netip.Addr, from []*backend) *backend {
	wins := r.lot(from)
	draw := func() int {
		for {
			if i := rand.IntN(len(from)); wins(from[i]) {
				return i
			}
		}
	}
	i := draw()
	j := (i + 1 + rand.IntN(max(len(from)-1, 1))) % len(from)
	if r.busy(from[j]) < r.busy(from[i]) {
		return from[j]
	}
	return from[i]
}

// sticky sends a client where it was last, if that was less than timeout ago and the endpoint may be tried.
type sticky struct {
	of      picker
	timeout time.Duration
	mu      sync.Mutex
	seen    map[netip.Addr]visit
	sweep   time.Time // when forgotten clients are looked for next
}

type visit struct {
	to   *backend
	last time.Time
}

func (s *sticky) pick(client netip.Addr, from []*backend) *backend {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.After(s.sweep) {
		s.sweep = now.Add(s.timeout)
		for c, v := range s.seen {
			if now.Sub(v.last) > s.timeout {
				delete(s.seen, c)
			}
		}
	}
	v, ok := s.seen[client]
	if !ok || now.Sub(v.last) > s.timeout || !slices.Contains(from, v.to) {
		v.to = s.of.pick(client, from)
	}
	s.seen[client] = visit{to: v.to, last: now}
	return v.to
}
