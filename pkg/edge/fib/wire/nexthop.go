// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
)

// From linux/nexthop.h and linux/rtnetlink.h; x/sys/unix does not have all of them.
const (
	NewNexthop    = 104 // RTM_NEWNEXTHOP
	DelNexthop    = 105 // RTM_DELNEXTHOP
	rtmGetNexthop = 106
	rtaNHID       = 30
	nhaID         = 1
	nhaGroup      = 2
	nhaGroupType  = 3
	nhaOIF        = 5
	nhaGateway    = 6
	nhaResGroup   = 12
	resBuckets    = 1 // within nhaResGroup
	typeResilient = 1 // of nhaGroupType
	sizeofNhmsg   = 8
	sizeofMember  = 8 // struct nexthop_grp
)

// buckets are the places of a resilient group that flows are hashed to; each keeps its hop as long as there is that hop.
// It is also the most hops that a group may have.
const buckets = 512

// Member is one hop of a group.
type Member struct {
	ID     uint32
	Weight int // parts, from 1
}

// Nexthop is one of our nexthop objects: a hop, or a group of them.
type Nexthop struct {
	ID      uint32
	Hop     route.NextHop
	IsGroup bool
	Members []Member
	Steady  bool // a resilient group (Linux 5.13)
}

// AppendHop appends the making of an object for one hop, which must not exist.
func AppendHop(m []byte, id uint32, h route.NextHop) []byte {
	at := len(m)
	m = nexthopHeader(m, NewNexthop, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL, Family(h.Gateway), id)
	m = AttrUint32(m, nhaOIF, uint32(h.Link))
	return Finish(AttrAddr(m, nhaGateway, h.Gateway), at)
}

// AppendGroup appends the making (flags: EXCL) or the change (REPLACE) of a group.
func AppendGroup(m []byte, g Nexthop, flags uint16) []byte {
	at := len(m)
	members := make([]byte, 0, len(g.Members)*sizeofMember)
	for _, x := range g.Members {
		members = Native.AppendUint32(members, x.ID)
		members = append(members, byte(x.Weight-1), 0, 0, 0)
	}
	m = nexthopHeader(m, NewNexthop, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|flags, unix.AF_UNSPEC, g.ID)
	m = Attr(m, nhaGroup, members)
	if g.Steady {
		m = Attr(m, nhaGroupType, Native.AppendUint16(nil, typeResilient))
		if flags&unix.NLM_F_EXCL != 0 {
			m = Attr(m, nhaResGroup|unix.NLA_F_NESTED, Attr(nil, resBuckets, Native.AppendUint16(nil, buckets)))
		}
	}
	return Finish(m, at)
}

// AppendDelNexthop appends the removal of an object.
func AppendDelNexthop(m []byte, id uint32) []byte {
	at := len(m)
	return Finish(nexthopHeader(m, DelNexthop, unix.NLM_F_REQUEST, unix.AF_UNSPEC, id), at)
}

func nexthopHeader(m []byte, typ, flags uint16, family byte, id uint32) []byte {
	protocol := byte(mark.RouteRouted)
	if typ == DelNexthop { // the kernel wants none
		protocol = 0
	}
	m = Start(m, typ, flags)
	m = append(m, family, 0, protocol, 0, 0, 0, 0, 0)
	return AttrUint32(m, nhaID, id)
}

// DumpNexthops asks for all objects.
func DumpNexthops() []byte { return DumpAll(rtmGetNexthop, sizeofNhmsg) }

// IsOurNexthop reports that a message is about an object of ours.
func IsOurNexthop(body []byte) bool { return len(body) >= sizeofNhmsg && body[2] == mark.RouteRouted }

// ParseNexthop reads an RTM_NEWNEXTHOP; ok is false for what is none of ours, and for kinds that we do not make.
func ParseNexthop(body []byte) (n Nexthop, ok bool) {
	if !IsOurNexthop(body) {
		return n, false
	}
	n, ok = ParseAnyNexthop(body)
	return n, ok && (n.IsGroup || n.Hop.Gateway.IsValid())
}

// ParseAnyNexthop reads an RTM_NEWNEXTHOP, whoever made the object; ok is false for kinds that lead nowhere. The hop of one
// that only names a link has no gateway.
func ParseAnyNexthop(body []byte) (n Nexthop, ok bool) {
	if len(body) < sizeofNhmsg {
		return n, false
	}
	a := Attrs(body[sizeofNhmsg:])
	if len(a[nhaID]) < 4 {
		return n, false
	}
	n.ID = Native.Uint32(a[nhaID])
	if members, ok := a[nhaGroup]; ok {
		typ := a[nhaGroupType]
		n.IsGroup, n.Steady = true, len(typ) >= 2 && Native.Uint16(typ) == typeResilient
		for ; len(members) >= sizeofMember; members = members[sizeofMember:] {
			n.Members = append(n.Members, Member{Native.Uint32(members), int(members[4]) + 1})
		}
		return n, true
	}
	gw, _ := netip.AddrFromSlice(a[nhaGateway])
	if len(a[nhaOIF]) < 4 {
		return n, false
	}
	n.Hop = route.NextHop{Gateway: gw, Link: int(Native.Uint32(a[nhaOIF]))}
	return n, true
}

// Weight is a hop's share as the kernel counts it: from 0 for one part.
func Weight(h route.NextHop) byte { return byte(max(1, h.Weight) - 1) }
