// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
)

// resendAfter is usually longer than a session stays half established inside gobgp.
const resendAfter = 100 * time.Millisecond

// resend sends a new session's peer everything once more. gobgp v4.8 takes its first snapshot before it counts the session
// as established; what changes between the two is sent to nobody, and would be missing for as long as the session lasts.
//
// On a machine that is overloaded the gap may be longer than resendAfter. gobgp hears the peer only when the gap is over,
// so a peer whose End-of-RIB has not come by then is sent everything again when it comes.
func (s *Speaker) resend(addr netip.Addr) {
	time.AfterFunc(resendAfter, func() {
		s.sessions.Look(addr, func(x *session.Entry) { x.Unsure = x.State == Established && !x.Synced })
		s.sendAll(addr)
	})
}

// synced takes note of a peer's End-of-RIB for one family.
func (s *Speaker) synced(addr netip.Addr, take func(*session.Entry)) {
	again := false
	s.sessions.Look(addr, func(x *session.Entry) {
		take(x)
		again = x.Unsure && x.Synced
		x.Unsure = x.Unsure && !again
	})
	if again {
		s.sendAll(addr)
	}
}

// softOut has gobgp send a peer all it is to know.
func (s *Speaker) softOut(addr netip.Addr) {
	_ = s.srv.ResetPeer(context.Background(), &api.ResetPeerRequest{
		Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
	}) // the session may have gone: then the next one sends it all
}
