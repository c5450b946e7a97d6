// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// sessions is what we know of every peer's session. Configured peers are there from the start, by name.
type sessions struct {
	mu     sync.Mutex
	byName map[string]*Session
	byAddr map[netip.Addr]*Session
	moved  chan struct{} // closed and renewed when any state changes
}

func (t *sessions) init(peers []Peer) {
	t.byName, t.byAddr, t.moved = map[string]*Session{}, map[netip.Addr]*Session{}, make(chan struct{})
	for _, p := range peers {
		t.byName[p.Name] = &Session{Peer: p.Name, State: Idle, Since: time.Now()}
	}
}

// bind says which address a configured peer has now.
func (t *sessions) bind(name string, addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byName[name]
	delete(t.byAddr, s.Address)
	s.Address = addr
	t.byAddr[addr] = s
}

func (t *sessions) state(addr netip.Addr) State {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byAddr[addr]; s != nil {
		return s.State
	}
	return Idle
}

// update changes one session and returns it and whether it differs in state or problem. f may find the zero Session.
func (t *sessions) update(addr netip.Addr, f func(*Session)) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byAddr[addr]
	if s == nil {
		s = &Session{Peer: addr.String(), Address: addr, Dynamic: true, State: Idle}
		t.byAddr[addr], t.byName[s.Peer] = s, s
	}
	return t.change(s, f)
}

func (t *sessions) updateName(name string, f func(*Session)) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.change(t.byName[name], f)
}

func (t *sessions) change(s *Session, f func(*Session)) (Session, bool) {
	before := *s
	f(s)
	if s.State != before.State {
		s.Since = time.Now()
		close(t.moved)
		t.moved = make(chan struct{})
	}
	return *s, s.State != before.State || s.Problem != before.Problem
}

// await waits until the peer's state is want; false means that ctx ended first.
func (t *sessions) await(ctx context.Context, addr netip.Addr, want State) bool {
	return t.until(ctx, addr, func(s State) bool { return s == want })
}

// awaitChange waits until the peer's state is something else.
func (t *sessions) awaitChange(ctx context.Context, addr netip.Addr, from State) {
	t.until(ctx, addr, func(s State) bool { return s != from })
}

func (t *sessions) until(ctx context.Context, addr netip.Addr, done func(State) bool) bool {
	for {
		t.mu.Lock()
		moved := t.moved
		state := Idle
		if s := t.byAddr[addr]; s != nil {
			state = s.State
		}
		t.mu.Unlock()
		if done(state) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-moved:
		}
	}
}

func (t *sessions) forget(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byAddr[addr]; s != nil && s.Dynamic {
		delete(t.byAddr, addr)
		delete(t.byName, s.Peer)
	}
}

// Synced reports that every configured peer has a session and has sent all it has (End-of-RIB, RFC 4724 section 2).
func (s *Speaker) Synced() bool {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	for _, p := range s.cfg.Peers {
		if x := s.sessions.byName[p.Name]; x.State != Established || !x.Synced {
			return false
		}
	}
	return len(s.cfg.Peers) > 0
}

// Sessions lists all peers, the configured ones and whoever connected from a listen range, sorted by name.
func (s *Speaker) Sessions(ctx context.Context) ([]Session, error) {
	s.sessions.mu.Lock()
	var out []Session
	for _, x := range s.sessions.byName {
		out = append(out, *x)
	}
	s.sessions.mu.Unlock()
	slices.SortFunc(out, func(a, b Session) int { return strings.Compare(a.Peer, b.Peer) })
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
	return out, nil
}

// report notes why a configured peer has no session and tells whoever listens, once per reason.
func (s *Speaker) report(name string, state State, problem string) {
	x, changed := s.sessions.updateName(name, func(x *Session) { x.State, x.Problem = state, problem })
	if changed {
		s.onSession(x)
	}
}

// peerEvent takes over what gobgp's state machine did.
func (s *Speaker) peerEvent(ev *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	addr := ev.Peer.State.NeighborAddress
	if !addr.IsValid() {
		return
	}
	state := states[ev.Peer.State.SessionState]
	x, changed := s.sessions.update(addr, func(x *Session) {
		lost := x.State == Established && state != Established
		switch {
		case state == Established:
			x.ASN, x.RouterID, x.Problem = ev.Peer.State.PeerASN, ev.Peer.State.RouterID, ""
		case state == Idle && ev.Peer.State.DisconnectMessage != "":
			x.Problem = explain(ev.Peer.State.DisconnectReason, ev.Peer.State.DisconnectMessage)
		}
		if lost {
			x.Synced = false
		}
		x.State = state
	})
	if changed && (state == Established || state == Idle) {
		s.onSession(x)
	}
	if x.Dynamic && state == Idle && ev.Peer.State.DisconnectReason != api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART {
		s.sessions.forget(addr)
	}
}

var states = map[bgp.FSMState]State{
	bgp.BGP_FSM_IDLE: Idle, bgp.BGP_FSM_CONNECT: Active, bgp.BGP_FSM_ACTIVE: Active, bgp.BGP_FSM_OPENSENT: OpenSent,
	bgp.BGP_FSM_OPENCONFIRM: OpenConfirm, bgp.BGP_FSM_ESTABLISHED: Established,
}

// explain puts gobgp's reason into words that say what to do, where it is not plain.
func explain(reason api.PeerState_DisconnectReason, text string) string {
	switch {
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
