// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Picker chooses the endpoint of one connection. It is called from many goroutines; from is never empty, must not be
// changed, and holds only endpoints that may be tried now.
type Picker interface {
	Pick(client netip.Addr, from []*Endpoint, now time.Time) *Endpoint
}

// NewPicker returns the one that the settings ask for. For Maglev it only stands in: see Group.
func NewPicker(tune tuning.Settings, affinity time.Duration) Picker {
	s := scales{uneven: tune.Weights != "" || tune.SlowStart > 0, window: tune.SlowStart}
	var p Picker
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

// share is what an endpoint weighs at that time.
func (s scales) share(b *Endpoint, now time.Time) float64 {
	if !s.uneven {
		return 1
	}
	return share(int(b.Weight.Load()), now.Sub(b.Since), s.window)
}

// lot decides by chance, in proportion to their shares, whether it is the turn of one endpoint among others.
func (s scales) lot(from []*Endpoint, now time.Time) func(*Endpoint) bool {
	if !s.uneven {
		return func(*Endpoint) bool { return true }
	}
	top := 0.0
	for _, b := range from {
		top = max(top, s.share(b, now))
	}
	return func(b *Endpoint) bool { return rand.Float64()*top <= s.share(b, now) }
}

// busy is how much an endpoint has to do for its share; with equal shares, one connection more than it has.
func (s scales) busy(b *Endpoint, now time.Time) float64 {
	return float64(b.Active.Load()+1) / s.share(b, now)
}

// share is the weight of an endpoint of that age: it grows from a tenth to the whole within window.
func share(weight int, age, window time.Duration) float64 {
	if age >= window {
		return float64(weight)
	}
	return float64(weight) * max(0.1, float64(age)/float64(window))
}

// roundRobin gives each endpoint its turn.
type roundRobin struct {
	scales
	turn atomic.Uint64
}

func (r *roundRobin) Pick(_ netip.Addr, from []*Endpoint, now time.Time) *Endpoint {
	wins := r.lot(from, now)
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

func (l *leastConnections) Pick(_ netip.Addr, from []*Endpoint, now time.Time) *Endpoint {
	start := l.turn.Add(1) - 1
	best := from[start%uint64(len(from))]
	least := l.busy(best, now)
	for i := range uint64(len(from)) {
		b := from[(start+i)%uint64(len(from))]
		if busy := l.busy(b, now); busy < least {
			best, least = b, busy
		}
	}
	return best
}

// randomTwo takes the less busy of two endpoints at random: nearly as even as leastConnections, without looking at all.
type randomTwo struct{ scales }

func (r randomTwo) Pick(_ netip.Addr, from []*Endpoint, now time.Time) *Endpoint {
	wins := r.lot(from, now)
	draw := func() int {
		for {
			if i := rand.IntN(len(from)); wins(from[i]) {
				return i
			}
		}
	}
	i := draw()
	j := (i + 1 + rand.IntN(max(len(from)-1, 1))) % len(from)
	if r.busy(from[j], now) < r.busy(from[i], now) {
		return from[j]
	}
	return from[i]
}

// mostClients is how many clients of one portal are remembered, some ten MB of them.
const mostClients = 100_000

// sticky sends a client where it was last, if that was less than timeout ago and the endpoint may be tried.
type sticky struct {
	of      Picker
	timeout time.Duration
	mu      sync.Mutex
	seen    map[netip.Addr]visit
	sweep   time.Time // when forgotten clients are looked for next
}

type visit struct {
	to   *Endpoint
	last time.Time
}

func (s *sticky) Pick(client netip.Addr, from []*Endpoint, now time.Time) *Endpoint {
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
		v.to = s.of.Pick(client, from, now)
	}
	if !ok && len(s.seen) >= mostClients {
		for c := range s.seen { // any: whoever comes from so many addresses must not cost more than it has
			delete(s.seen, c)
			break
		}
	}
	s.seen[client] = visit{to: v.to, last: now}
	return v.to
}
