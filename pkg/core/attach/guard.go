// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"net/netip"
	"slices"
)

// Guard is what a port's pod may send as. The zero value is anything.
type Guard struct {
	MAC   MAC
	Addrs []netip.Addr // none: any address, from that MAC
}

// Equal compares guards, whose addresses are sorted.
func (g Guard) Equal(o Guard) bool { return g.MAC == o.MAC && slices.Equal(g.Addrs, o.Addrs) }

// Bind binds the pod to its MAC, and with addresses to those; besides them a pod with IPv6 speaks from its link-local
// address (RFC 4291 appendix A), and from none while it looks for duplicates.
func Bind(p Pod, addresses bool) Guard {
	g := Guard{MAC: p.MAC}
	if !addresses {
		return g
	}
	six := false
	for _, a := range p.Addrs {
		g.Addrs = append(g.Addrs, a.Addr())
		six = six || a.Addr().Is6()
	}
	if six {
		m := p.MAC
		local := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
		g.Addrs = append(g.Addrs, local, netip.IPv6Unspecified())
	}
	slices.SortFunc(g.Addrs, netip.Addr.Compare)
	return g
}
