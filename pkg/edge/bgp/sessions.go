// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"maps"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
)

// report notes why a configured peer has no session and tells whoever listens, once per reason.
func (s *Speaker) report(name string, state State, problem string) {
	x, changed := s.sessions.UpdateName(name, func(x *session.Entry) {
		if !x.Live { // else the peer has connected to us meanwhile
			x.State, x.Problem = state, problem
			if state == Unresolved {
				x.SameAs = ""
			}
		}
	})
	if changed {
		s.onSession(x)
	}
}

// stillLooking says that there is no address yet, unless there was one before.
func (s *Speaker) stillLooking(name string) {
	x, changed := s.sessions.UpdateName(name, func(x *session.Entry) {
		if !x.Address.IsValid() && x.Problem == "" {
			x.State, x.Problem = Unresolved, "the resolver has not answered yet"
		}
	})
	if changed {
		s.onSession(x)
	}
}

// hasSaid notes why a peer ends its session. It is as long as the peer likes and may hold anything.
func (s *Speaker) hasSaid(peer netip.Addr, reason string) {
	reason = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '.'
	}, reason)
	s.sessions.Update(peer, func(x *session.Entry) { x.Said = reason })
}

// peerEvent takes over what gobgp's state machine did.
func (s *Speaker) peerEvent(ev *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	addr := ev.Peer.State.NeighborAddress
	if !addr.IsValid() {
		return
	}
	state := states[ev.Peer.State.SessionState]
	reason := ev.Peer.State.DisconnectReason
	x, changed := s.sessions.Update(addr, func(x *session.Entry) {
		lost := x.State == Established && state != Established
		if x.Dynamic && state == Established && !x.Live {
			x.Ended = false // whatever became of the session that we ended, this is another one
		}
		switch {
		case state == Established:
			x.ASN, x.RouterID, x.Problem = ev.Peer.State.PeerASN, ev.Peer.State.RouterID, ""
			x.Kept = false
			x.OnLink = s.sessions.Reaches(addr)
			x.Untold, x.Unsure = spoken(ev.Peer.State), false
		case x.Ended:
		case lost && ev.Peer.State.DisconnectMessage == "":
			x.Problem = "the session ended without a reason"
		case state == Idle && ev.Peer.State.DisconnectMessage != "" && reason != api.PeerState_DISCONNECT_REASON_DECONFIGURED:
			x.Problem = explain(reason, ev.Peer.State.DisconnectMessage)
			if x.Said != "" {
				x.Problem, x.Said = "the peer has been shut down: "+x.Said, ""
			}
		}
		if x.State == Established && state != Established {
			x.Losses++
		}
		if lost {
			x.Synced, x.Kept = false, reason == api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART
			x.Renew = !x.Dynamic && reason != api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART
		}
		x.State, x.Live = state, state == Established
	})
	if x.Dynamic && state == Established && s.sessions.IsBanned(addr) {
		s.end(addr, "it sent too many prefixes within the last minute")
	}
	changed = changed && !s.sessions.IsEnded(addr)
	if changed && !s.ending.Load() && (state == Established || state == Idle && x.Problem != "") {
		s.onSession(x)
	}
	if changed && state == Established {
		s.resend(addr)
	}
	if x.Dynamic && state == Idle && reason != api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART {
		s.sessions.Forget(addr)
	}
}

// spoken are the families that both sides of a session speak (RFC 4760 section 8); without a word it is IPv4.
func spoken(p apiutil.PeerState) map[bgp.Family]bool {
	out := map[bgp.Family]bool{}
	ours, theirs := families(p.LocalCap), families(p.RemoteCap)
	for f := range ours {
		out[f] = theirs[f]
	}
	maps.DeleteFunc(out, func(_ bgp.Family, both bool) bool { return !both })
	return out
}

func families(caps []bgp.ParameterCapabilityInterface) map[bgp.Family]bool {
	out := map[bgp.Family]bool{}
	for _, c := range caps {
		if mp, ok := c.(*bgp.CapMultiProtocol); ok {
			out[mp.CapValue] = true
		}
	}
	if len(out) == 0 {
		out[bgp.RF_IPv4_UC] = true
	}
	return out
}

var states = map[bgp.FSMState]State{
	bgp.BGP_FSM_IDLE: Idle, bgp.BGP_FSM_CONNECT: Active, bgp.BGP_FSM_ACTIVE: Active, bgp.BGP_FSM_OPENSENT: OpenSent,
	bgp.BGP_FSM_OPENCONFIRM: OpenConfirm, bgp.BGP_FSM_ESTABLISHED: Established,
}
