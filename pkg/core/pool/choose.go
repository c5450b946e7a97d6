// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"net/netip"
)

// Choose says which address a pod gets of each set: the one that is asked for, else one that it has already (an ADD that was
// interrupted has claimed it), else, where the address is zero, the next that is free. Every address that is asked for and
// cannot be given is named.
func Choose(sets []Set, asked, had []netip.Addr) ([]netip.Addr, error) {
	out := make([]netip.Addr, len(sets))
	var errs []error
	free := func(i int, a netip.Addr) bool { return sets[i].has(a) && !out[i].IsValid() }
	for _, a := range asked {
		if i := place(sets, a, free); i >= 0 {
			out[i] = a
		} else if i := place(sets, a, func(i int, a netip.Addr) bool { return !sets[i].has(a) && sets[i].holds(a) }); i >= 0 {
			r, _ := sets[i].Subnet(a)
			errs = append(errs, fmt.Errorf("asked-for address %s cannot be given: pods of %s have %s to %s without the gateway %s", a, r.Subnet, r.First, r.Last, r.Gateway))
		} else {
			errs = append(errs, fmt.Errorf("asked-for address %s is in no range of this network, or a second one of its range", a))
		}
	}
	for _, a := range had {
		if i := place(sets, a, free); i >= 0 {
			out[i] = a
		}
	}
	return out, errors.Join(errs...)
}

// place finds the first set that fits the address, -1 when none does.
func place(sets []Set, a netip.Addr, fits func(i int, a netip.Addr) bool) int {
	for i := range sets {
		if fits(i, a) {
			return i
		}
	}
	return -1
}

// Assign says which set each of a pod's addresses is of, -1: of none. It goes by the ranges, and where those have changed
// since, by the subnets.
func Assign(sets []Set, addrs []netip.Addr) []int {
	out, used := make([]int, len(addrs)), make([]bool, len(sets))
	for n := range out {
		out[n] = -1
	}
	for _, in := range []func(Set, netip.Addr) bool{Set.has, Set.holds} {
		for n, a := range addrs {
			if out[n] >= 0 {
				continue
			}
			out[n] = place(sets, a, func(i int, a netip.Addr) bool { return in(sets[i], a) && !used[i] })
			if out[n] >= 0 {
				used[out[n]] = true
			}
		}
	}
	return out
}

func (s Set) has(a netip.Addr) bool   { _, ok := s.Find(a); return ok }
func (s Set) holds(a netip.Addr) bool { _, ok := s.Subnet(a); return ok }
