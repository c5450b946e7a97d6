// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
)

// event is what gobgp's state machine tells of a peer.
func event(a string, state bgp.FSMState, reason api.PeerState_DisconnectReason) *apiutil.WatchEventMessage_PeerEvent {
	return &apiutil.WatchEventMessage_PeerEvent{Peer: apiutil.Peer{State: apiutil.PeerState{
		NeighborAddress: addr(a), SessionState: state, DisconnectReason: reason, DisconnectMessage: reason.String(),
	}}}
}

// quiet is a speaker that is not run; it notes what it tells and whom it sends everything.
func quiet(cfg Config) (s *Speaker, told *[]string, sent *atomic.Int32) {
	told, sent = new([]string), new(atomic.Int32)
	s = New(cfg, nil, func(x Session) { *told = append(*told, x.Peer+" "+string(x.State)) })
	s.sendAll = func(netip.Addr) { sent.Add(1) }
	return s, told, sent
}

// TestANewSessionOfANeighbourThatWeEnded: the connection broke while we ended the session, so that gobgp keeps the neighbour
// as one that restarts. Its next session is news.
func TestANewSessionOfANeighbourThatWeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told, sent := quiet(Config{})
		const none, restart = api.PeerState_DISCONNECT_REASON_UNSPECIFIED, api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART
		s.peerEvent(event("10.0.0.1", bgp.BGP_FSM_ESTABLISHED, none), time.Time{})
		s.sessions.End(addr("10.0.0.1"))
		s.peerEvent(event("10.0.0.1", bgp.BGP_FSM_IDLE, restart), time.Time{})
		s.peerEvent(event("10.0.0.1", bgp.BGP_FSM_ESTABLISHED, none), time.Time{})
		time.Sleep(time.Second)
		if want := []string{"10.0.0.1 established", "10.0.0.1 established"}; !slices.Equal(*told, want) {
			t.Errorf("told %v, want %v", *told, want)
		}
		if n := sent.Load(); n != 2 {
			t.Errorf("sent everything %d times, want once for each session", n)
		}
	})
}

// TestAFailedDialBesideASession: the peer has connected to us while our own attempt failed.
func TestAFailedDialBesideASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := quiet(Config{Peers: []Peer{{Name: "mls"}}})
		s.sessions.Bind("mls", addr("10.0.0.1"))
		s.peerEvent(event("10.0.0.1", bgp.BGP_FSM_ESTABLISHED, 0), time.Time{})
		s.report("mls", Active, "connection refused")
		if got := s.sessions.State(addr("10.0.0.1")); got != Established {
			t.Errorf("the session is %s", got)
		}
		time.Sleep(time.Second)
	})
}

// TestAPeerThatMayHaveMissedSomething: on an overloaded machine gobgp may not have been ready for the second sending. It is
// when it has heard the peer.
func TestAPeerThatMayHaveMissedSomething(t *testing.T) {
	for _, c := range []struct {
		name string
		eor  time.Duration
		want int32
	}{
		{"End-of-RIB came first", 50 * time.Millisecond, 1},
		{"End-of-RIB came after the second sending", 200 * time.Millisecond, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _, sent := quiet(Config{})
				s.peerEvent(event("10.0.0.1", bgp.BGP_FSM_ESTABLISHED, 0), time.Time{})
				time.Sleep(c.eor)
				for range 2 { // a peer may repeat it
					s.synced(addr("10.0.0.1"), func(x *session.Entry) { x.Synced = true })
				}
				time.Sleep(time.Second)
				if n := sent.Load(); n != c.want {
					t.Errorf("sent everything %d times, want %d", n, c.want)
				}
			})
		})
	}
}
