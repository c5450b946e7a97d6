// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// picker chooses the endpoint of one connection. It is called from many goroutines; from is never empty, must not be
// changed, and holds only endpoints that may be tried now.
type picker interface {
	pick(client netip.Addr, from []*backend) *backend
}

// newPicker returns the picker that the settings ask for.
func newPicker(tune tuning.Settings, affinity time.Duration) picker {
	var p picker
	switch tune.Balance {
	case tuning.LeastConnections:
		p = new(leastConnections)
	case tuning.RandomTwo:
		p = randomTwo{}
	case tuning.Hash:
		p = hash{}
	default:
		p = new(roundRobin)
	}
	if tune.SlowStart > 0 {
		p = slowStart{of: p, window: tune.SlowStart}
	}
	if affinity > 0 {
		p = &sticky{of: p, timeout: affinity, seen: map[netip.Addr]visit{}}
	}
	return p
}

// roundRobin gives each endpoint its turn.
type roundRobin struct{ turn atomic.Uint64 }

func (r *roundRobin) pick(_ netip.Addr, from []*backend) *backend {
	return from[(r.turn.Add(1)-1)%uint64(len(from))]
}

// leastConnections takes the least busy endpoint, in turn among equals.
type leastConnections struct{ turn atomic.Uint64 }

func (l *leastConnections) pick(_ netip.Addr, from []*backend) *backend {
	start := l.turn.Add(1) - 1
	best := from[start%uint64(len(from))]
	for i := range uint64(len(from)) {
		if b := from[(start+i)%uint64(len(from))]; b.active.Load() < best.active.Load() {
			best = b
		}
	}
	return best
}

// randomTwo takes the less busy of two endpoints at random: nearly as even as leastConnections, without looking at all.
type randomTwo struct{}

func (randomTwo) pick(_ netip.Addr, from []*backend) *backend {
	i := rand.IntN(len(from))
	a, b := from[i], from[(i+1+rand.IntN(max(len(from)-1, 1)))%len(from)]
	if b.active.Load() < a.active.Load() {
		return b
	}
	return a
}

// hash takes the endpoint that scores highest with the client's address (rendezvous hashing). Every node scores alike.
type hash struct{}

func (hash) pick(client netip.Addr, from []*backend) *backend {
	seed := fold(client)
	best, top := from[0], uint64(0)
	for _, b := range from {
		if score := mix(seed ^ mix(fold(b.addr.Addr())+uint64(b.addr.Port()))); score >= top {
			best, top = b, score
		}
	}
	return best
}

func fold(a netip.Addr) uint64 {
	b := a.As16()
	return mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:])
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood 2014): every input bit moves every output bit.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// slowStart lets a new endpoint take a share that grows from a tenth to the whole within window.
type slowStart struct {
	of     picker
	window time.Duration
}

func (s slowStart) pick(client netip.Addr, from []*backend) *backend {
	for {
		b := s.of.pick(client, from)
		age := time.Since(b.since)
		if len(from) == 1 || age >= s.window || rand.Float64() < max(0.1, float64(age)/float64(s.window)) {
			return b
		}
		from = only(from, func(o *backend) bool { return o != b })
	}
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
