// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"

	"github.com/l3edge/l3edge/pkg/edge/bgp/dial"
	"github.com/l3edge/l3edge/pkg/edge/bgp/reach"

	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
)

// Reachable says which peers connected links lead to. A session whose link is gone is dropped at once, with all that was
// learned over it: gobgp would wait for the hold time. Peers that are further away are left to BGP's own timers.
func (s *Speaker) Reachable(reaches func(netip.Addr) bool) {
	for _, addr := range s.sessions.Reachable(reaches) {
		s.drop(addr, "the link to the peer is down", false)
	}
}

// drop ends an established session and forgets all that was learned by it. A configured peer is made anew, after a
// minute if it is cutOff.
func (s *Speaker) drop(addr netip.Addr, problem string, cutOff bool) {
	if s.sessions.State(addr) != Established {
		return
	}
	x, _ := s.sessions.Update(addr, func(x *session.Entry) {
		x.Losses++
		x.State, x.Synced, x.Problem, x.Renew, x.CutOff = Idle, false, problem, !x.Dynamic, cutOff
	})
	s.onSession(x)
	if x.Dynamic && cutOff {
		s.sessions.Ban(addr)
	}
	s.end(addr, problem)
}

// end ends a session with a reason that the peer is told. gobgp forgets what was learned by it once it has taken in all
// that was under way; a peer that is deleted before leaves routes behind that nobody ever withdraws.
func (s *Speaker) end(addr netip.Addr, why string) {
	if s.sessions.End(addr) {
		_ = s.srv.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{Address: addr.String(), Communication: why}) // it may have gone
	}
}

// endBFD tells the peers that BFD ends by will. With a hand-over it comes after the connection has ended without a word, so
// that peers keep our routes, and no packet of our successor's looks like a failure (RFC 5882 section 4.3).
func (s *Speaker) endBFD(all []reach.BFD) {
	for _, x := range all {
		if x.Theirs != 0 {
			_ = dial.AdminDown(s.self.From(s.settings(x.Peer), x.Peer), x.Peer, x.Mine, x.Theirs) // the link may have gone
		}
	}
}
