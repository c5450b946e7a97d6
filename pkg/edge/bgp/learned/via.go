// SPDX-License-Identifier: Apache-2.0

package learned

import (
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// via is the way that a path names.
func via(p *apiutil.Path) route.Via {
	v := route.Via{Peer: p.PeerAddress}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			v.NextHop = a.Value
		case *bgp.PathAttributeMpReachNLRI:
			v.NextHop = a.Nexthop
		case *bgp.PathAttributeExtendedCommunities:
			v.Bandwidth = bandwidth(a)
		}
	}
	if v.NextHop.Is6() && v.NextHop.IsLinkLocalUnicast() {
		v.NextHop = v.NextHop.WithZone(p.PeerAddress.Zone()) // BGP carries none: it is on the link to the peer
	}
	return v
}

// bandwidth is what a link-bandwidth community (draft-ietf-idr-link-bandwidth) says, in bytes per second; 0: nothing.
func bandwidth(a *bgp.PathAttributeExtendedCommunities) uint64 {
	for _, c := range a.Value {
		if b, ok := c.(*bgp.LinkBandwidthExtended); ok && b.Bandwidth >= 1 && b.Bandwidth < 1<<60 {
			return uint64(b.Bandwidth)
		}
	}
	return 0
}
