// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"encoding/binary"
	"net/netip"
)

// Size is how many slots a Maglev table has: a prime, for a hundred endpoints a hundred and sixty slots each.
const Size = 16381

// Maglev is a table of slots, each of which belongs to one endpoint, by its index (Eisenbud and others, "Maglev: a fast
// and reliable software network load balancer", NSDI 2016, 3.4). It depends on nothing but the endpoints: every node makes
// the same, and an endpoint that comes or goes moves few slots but its own. nil: there are no endpoints.
type Maglev []uint16

// NewMaglev gives each endpoint slots in proportion to its weight; 0 gets none. The endpoints may be in any order, but
// their indexes are what the table holds. No more than Size of them are used.
func NewMaglev(endpoints []netip.AddrPort, weights []int) Maglev {
	type turn struct {
		next, skip uint64
		credit     int
		index      int
	}
	var turns []turn
	top := 0
	for i, e := range endpoints[:min(len(endpoints), Size)] {
		if weights[i] <= 0 {
			continue
		}
		h := mix(fold(e.Addr()) + uint64(e.Port()))
		turns = append(turns, turn{next: h % Size, skip: mix(h)%(Size-1) + 1, index: i})
		top = max(top, weights[i])
	}
	if len(turns) == 0 {
		return nil
	}
	const none = 1<<16 - 1
	table := make(Maglev, Size)
	for i := range table {
		table[i] = none
	}
	for filled := 0; ; {
		for k := range turns {
			t := &turns[k]
			if t.credit += weights[t.index]; t.credit < top {
				continue
			}
			t.credit -= top
			for table[t.next] != none {
				t.next = (t.next + t.skip) % Size
			}
			table[t.next] = uint16(t.index) //nolint:gosec // below Size
			if filled++; filled == Size {
				return table
			}
		}
	}
}

// For returns the endpoint of a client, or of the next slot whose endpoint will do; -1 if none will.
func (m Maglev) For(client netip.Addr, ok func(index int) bool) int {
	start := mix(fold(client)) % Size
	for i := range m {
		if at := int(m[(start+uint64(i))%Size]); ok(at) { //nolint:gosec // an index
			return at
		}
	}
	return -1
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
