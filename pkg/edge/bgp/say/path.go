// SPDX-License-Identifier: Apache-2.0

package say

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// perShare is the link bandwidth of one share, in bytes per second: 1 Gbit/s. Only proportions matter.
const perShare = 125e6

// Path is an announcement of ours, with ourselves as next hop.
func (s Self) Path(a route.Announcement) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(a.Prefix)
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", a.Prefix, err)
	}
	p := &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: nlri, Age: time.Now().Unix(), Attrs: []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}}
	var self bgp.PathAttributeInterface // no address: gobgp puts in the session's own
	if a.Prefix.Addr().Is4() {
		self, err = bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
	} else {
		p.Family = bgp.RF_IPv6_UC
		self, err = bgp.NewPathAttributeMpReachNLRI(bgp.RF_IPv6_UC, []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	}
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", a.Prefix, err)
	}
	p.Attrs = append(p.Attrs, self)
	if a.Leaving {
		p.Attrs = append(p.Attrs, bgp.NewPathAttributeCommunities([]uint32{GracefulShutdown}))
	}
	if a.Share > 0 {
		asn := uint16(asTrans)
		if s.ASN <= math.MaxUint16 {
			asn = uint16(s.ASN)
		}
		link := bgp.NewLinkBandwidthExtended(asn, float32(a.Share)*perShare)
		p.Attrs = append(p.Attrs, bgp.NewPathAttributeExtendedCommunities([]bgp.ExtendedCommunityInterface{link}))
	}
	return p, nil
}

// asTrans stands for a 4-byte ASN where there is room for two (RFC 6793 section 9).
const asTrans = 23456
