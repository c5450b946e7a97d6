// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// resendAfter is longer than a session stays half established inside gobgp.
const resendAfter = 100 * time.Millisecond

// resend sends a new session's peer everything once more. gobgp v4.8 takes its first snapshot before it counts the session
// as established; what changes between the two is sent to nobody, and would be missing for as long as the session lasts.
func (s *Speaker) resend(addr netip.Addr) {
	time.AfterFunc(resendAfter, func() {
		_ = s.srv.ResetPeer(context.Background(), &api.ResetPeerRequest{
			Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT,
		}) // the session may have gone: then the next one sends it all
	})
}
