// SPDX-License-Identifier: Apache-2.0

// Package pool says which addresses of a node's subnets may be given to pods, and in which order.
package pool

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"

	prefix "github.com/l3edge/l3edge/pkg/core/subnet"
)

// Range is a run of addresses inside one subnet. NewRange makes it valid.
type Range struct {
	Subnet      netip.Prefix // masked
	First, Last netip.Addr   // both may be given
	Gateway     netip.Addr   // never given; the node's own address on the bridge
}

// Set is the ranges that one address of a pod is chosen from, in order. They are of one family.
type Set []Range

// NewRange fills what is zero: the gateway with the subnet's first host address, first and last with its ends. Network
// and broadcast address are left out where the subnet has them (IPv4 up to /30, RFC 3021; IPv6 has the subnet-router
// anycast address, RFC 4291 section 2.6.1, and no broadcast).
func NewRange(subnet netip.Prefix, first, last, gateway netip.Addr) (Range, error) {
	if !subnet.IsValid() {
		return Range{}, errors.New("subnet: missing")
	}
	if subnet != subnet.Masked() {
		return Range{}, fmt.Errorf("subnet: %s has host bits set: did you mean %s?", subnet, subnet.Masked())
	}
	low, high := subnet.Addr(), prefix.Last(subnet)
	if hostBits := low.BitLen() - subnet.Bits(); hostBits > 1 {
		low = low.Next()
		if low.Is4() {
			high = high.Prev()
		}
	}
	r := Range{Subnet: subnet, First: first, Last: last, Gateway: gateway}
	var errs []error
	for _, p := range unusable {
		if p.Overlaps(subnet) {
			errs = append(errs, fmt.Errorf("subnet: %s holds addresses that no pod can have, of %s", subnet, p))
		}
	}
	for _, f := range []struct {
		name  string
		addr  *netip.Addr
		value netip.Addr
	}{{"gateway", &r.Gateway, low}, {"rangeStart", &r.First, low}, {"rangeEnd", &r.Last, high}} {
		if !f.addr.IsValid() {
			*f.addr = f.value
		} else if !subnet.Contains(*f.addr) {
			errs = append(errs, fmt.Errorf("%s: %s is not in %s", f.name, *f.addr, subnet))
		}
	}
	if len(errs) == 0 && (r.Gateway.Less(low) || high.Less(r.Gateway)) {
		errs = append(errs, fmt.Errorf("gateway: %s is not between the first and the last host of %s, %s and %s", r.Gateway, subnet, low, high))
	}
	r.First, r.Last = maxAddr(r.First, low), minAddr(r.Last, high)
	switch {
	case len(errs) > 0:
	case r.Last.Less(r.First):
		errs = append(errs, fmt.Errorf("rangeEnd: %s is before rangeStart %s", r.Last, r.First))
	case r.First == r.Last && r.First == r.Gateway:
		errs = append(errs, fmt.Errorf("subnet: %s has no address for pods beside the gateway %s", subnet, r.Gateway))
	}
	if err := errors.Join(errs...); err != nil {
		return Range{}, err
	}
	return r, nil
}

// unusable are the prefixes whose addresses no interface can have, or none that is routed (RFC 6890, RFC 5771, RFC 4291).
var unusable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// Find returns the range that a may be given from.
func (s Set) Find(a netip.Addr) (Range, bool) {
	for _, r := range s {
		if r.Has(a) {
			return r, true
		}
	}
	return Range{}, false
}

// Subnet returns the range that a may be given from, else one whose subnet holds a.
func (s Set) Subnet(a netip.Addr) (Range, bool) {
	if r, ok := s.Find(a); ok {
		return r, true
	}
	for _, r := range s {
		if r.Subnet.Contains(a) {
			return r, true
		}
	}
	return Range{}, false
}

// After walks every address that may be given, once, beginning behind a and coming round to it at the end, so that an
// address rests as long as it can before it is given again. An a outside the set begins at the front.
func (s Set) After(a netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if len(s) == 0 {
			return
		}
		start := 0
		for i, r := range s {
			if r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0 {
				start = i
			}
		}
		inside := s[start].First.Compare(a) <= 0 && a.Compare(s[start].Last) <= 0
		if inside && a != s[start].Last && !s[start].walk(a.Next(), s[start].Last, yield) {
			return
		}
		if !inside && !s[start].walk(s[start].First, s[start].Last, yield) {
			return
		}
		for i := 1; i < len(s); i++ {
			r := s[(start+i)%len(s)]
			if !r.walk(r.First, r.Last, yield) {
				return
			}
		}
		if inside {
			s[start].walk(s[start].First, a, yield)
		}
	}
}

// Size is how many addresses the set can give, at most 1<<62.
func (s Set) Size() int {
	total := 0
	for _, r := range s {
		n := distance(r.First, r.Last)
		if r.First.Compare(r.Gateway) <= 0 && r.Gateway.Compare(r.Last) <= 0 {
			n--
		}
		if total += n; total > 1<<62 || total < 0 {
			return 1 << 62
		}
	}
	return total
}

// Overlaps says that there is an address which both ranges may give.
func (r Range) Overlaps(o Range) bool { return !r.Last.Less(o.First) && !o.Last.Less(r.First) }

// Has says that a may be given.
func (r Range) Has(a netip.Addr) bool {
	return a != r.Gateway && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

func (r Range) walk(from, to netip.Addr, yield func(netip.Addr) bool) bool {
	for a := from; ; a = a.Next() {
		if a != r.Gateway && !yield(a) {
			return false
		}
		if a == to {
			return true
		}
	}
}

// distance is the number of addresses from a to b, both counted, at most 1<<61.
func distance(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	n, borrow := uint64(0), 0
	for i := 15; i >= 0; i-- {
		d := int(y[i]) - int(x[i]) - borrow
		if borrow = 0; d < 0 {
			d, borrow = d+256, 1
		}
		if d > 0 && 15-i >= 7 {
			return 1 << 61
		}
		if 15-i < 7 {
			n |= uint64(d) << (8 * (15 - i))
		}
	}
	return int(n) + 1
}

func maxAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

func minAddr(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}
