// SPDX-License-Identifier: Apache-2.0

// Package subnet does the arithmetic of prefixes: first and last address, the n-th host, overlap.
package subnet

import (
	"fmt"
	"net/netip"
)

// First is the lowest host address of p: network address plus one, the address that a node's bridge holds.
// A prefix of one or two addresses has no room for a network address (RFC 3021): its own address is returned.
func First(p netip.Prefix) netip.Addr {
	p = p.Masked()
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// Last is the highest address of p; for IPv4 it is the broadcast address.
func Last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Overlap reports one prefix of a and one of b that share an address; ok is false when there are none.
func Overlap(a, b []netip.Prefix) (pa, pb netip.Prefix, ok bool) {
	for _, pa := range a {
		for _, pb := range b {
			if pa.Overlaps(pb) {
				return pa, pb, true
			}
		}
	}
	return netip.Prefix{}, netip.Prefix{}, false
}

// Contains reports whether inner lies wholly inside outer.
func Contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Parse reads a prefix and refuses one whose host bits are set, naming the prefix that was meant.
func Parse(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a prefix", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has host bits set: did you mean %s?", p, p.Masked())
	}
	return p, nil
}
