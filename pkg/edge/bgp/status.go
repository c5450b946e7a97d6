// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"strings"

	"github.com/osrg/gobgp/v4/api"
)

// Synced reports that every configured peer has a session and has sent all it has (End-of-RIB, RFC 4724 section 2).
func (s *Speaker) Synced() bool {
	known := false
	for _, x := range s.sessions.All() {
		if x.Dynamic || x.SameAs != "" {
			continue
		}
		if x.State != Established || !x.Synced {
			return false
		}
		known = true
	}
	return known
}

// Sessions lists all peers, the configured ones and whoever connected from a listen range, sorted by name.
func (s *Speaker) Sessions(ctx context.Context) ([]Session, error) {
	out := s.sessions.All()
	select {
	case <-s.started:
	default:
		return out, nil
	}
	err := s.srv.ListPeer(ctx, &api.ListPeerRequest{EnableAdvertised: true}, func(p *api.Peer) {
		for i := range out {
			if out[i].Address.String() != p.GetState().GetNeighborAddress() || out[i].State != Established {
				continue
			}
			for _, f := range p.GetAfiSafis() {
				out[i].In += f.GetState().GetReceived()
				out[i].Out += f.GetState().GetAdvertised()
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list peers: %w", err)
	}
	s.srv.ListBfdPeer(ctx, func(addr string, st *api.BfdPeerState) {
		for i := range out {
			if out[i].Address.String() == addr {
				out[i].BFD = bfdStates[st.GetSessionState()]
			}
		}
	})
	return out, nil
}

var bfdStates = map[api.BfdSessionState]string{
	api.BfdSessionState_BFD_SESSION_STATE_UP: "up", api.BfdSessionState_BFD_SESSION_STATE_DOWN: "down",
	api.BfdSessionState_BFD_SESSION_STATE_INIT: "init", api.BfdSessionState_BFD_SESSION_STATE_ADMIN_DOWN: "admin-down",
}

// explain puts gobgp's reason into words that say what to do, where it is not plain.
func explain(reason api.PeerState_DisconnectReason, text string) string {
	switch {
	case reason == api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT && strings.Contains(text, "administrative reset"):
		return "BFD: nothing heard from the peer" // nobody but BFD resets a session from here
	case reason == api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return "the peer's ASN is not the one configured"
	case reason == api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return "nothing heard from the peer for the hold time"
	case reason == api.PeerState_DISCONNECT_REASON_READ_FAILED:
		return "the peer closed the connection"
	case reason == api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		return "lost without a word: its routes are kept while it may be restarting"
	case reason == api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED:
		return "did not come back within its restart time: its routes are gone"
	}
	return text
}
