// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"slices"
)

// MaxWeight is the largest share of one hop; the kernel counts them in a byte (struct nexthop_grp, linux/nexthop.h).
const MaxWeight = 255

// finest is how many steps shares are rounded to. Few steps let prefixes with nearly the same bandwidths share one set
// of next hops, and so change with one message.
const finest = 60

// shares turns bandwidths into weights: the widest way gets finest (60 divides well), the others in proportion, and nobody less than 1.
// They are all 0 when the bandwidth of any way is not known.
func shares(via []Via) []int {
	out := make([]int, len(via))
	widest := slices.MaxFunc(via, func(a, b Via) int { return cmp.Compare(a.Bandwidth, b.Bandwidth) }).Bandwidth
	for i, v := range via {
		if v.Bandwidth == 0 {
			return make([]int, len(via))
		}
		out[i] = max(1, int(float64(v.Bandwidth)/float64(widest)*finest+0.5))
	}
	return out
}

// NewEntry is an entry over hops in any order. A gateway that is there twice is one hop with both shares. Weights are
// brought to their smallest terms, and to 0 when all are equal.
func NewEntry(hops ...NextHop) Entry {
	slices.SortFunc(hops, compareHops)
	out := hops[:0]
	for _, h := range hops {
		if n := len(out); n > 0 && compareHops(out[n-1], h) == 0 {
			out[n-1].Weight += h.Weight
			continue
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return Entry{}
	}
	normalize(out)
	return Entry{Hops: out}
}

func compareHops(a, b NextHop) int {
	return cmp.Or(a.Gateway.Compare(b.Gateway), cmp.Compare(a.Link, b.Link))
}

func normalize(hops []NextHop) {
	most := slices.MaxFunc(hops, func(a, b NextHop) int { return cmp.Compare(a.Weight, b.Weight) }).Weight
	if most > MaxWeight { // many ways through one gateway
		for i := range hops {
			hops[i].Weight = max(1, hops[i].Weight*MaxWeight/most)
		}
	}
	divisor, equal := 0, true
	for _, h := range hops {
		divisor = gcd(divisor, h.Weight)
		equal = equal && h.Weight == hops[0].Weight
	}
	for i := range hops {
		if equal {
			hops[i].Weight = 0
		} else {
			hops[i].Weight = max(1, hops[i].Weight/divisor)
		}
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
