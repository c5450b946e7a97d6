// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// sessions is what we know of every peer's session. Configured peers are there from the start, by name.
type sessions struct {
	mu     sync.Mutex
	byName map[string]*entry
	byAddr map[netip.Addr]*entry
	moved  chan struct{}            // closed and renewed when any state changes
	banned map[netip.Addr]time.Time // dynamic neighbours that sent too much, and until when
	// reaches says which addresses connected links lead to, as of the last Reachable.
	reaches func(netip.Addr) bool
}

type entry struct {
	Session
	renew  bool // lost for good: begin anew, without the rest that gobgp takes after a failure
	onLink bool // it could be reached over a connected link
	cutOff bool // it sent too much: begin anew only after a minute
	live   bool // gobgp holds it for established
	ended  bool // by us: what gobgp says of it is no news
	unsure bool // it may have missed something: see resend
	// untold are the families whose End-of-RIB (RFC 4724 section 2) has not come yet.
	untold map[bgp.Family]bool
	said   string // why the peer ends the session, in its own words
}

func (t *sessions) init(peers []Peer) {
	t.byName, t.byAddr, t.moved = map[string]*entry{}, map[netip.Addr]*entry{}, make(chan struct{})
	t.banned = map[netip.Addr]time.Time{}
	t.reaches = func(netip.Addr) bool { return false }
	for _, p := range peers {
		t.expect(p.Name)
	}
}

// expect makes room for a configured peer.
func (t *sessions) expect(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byName[name]; e == nil || e.Dynamic { // one of that name may be about to go
		t.byName[name] = &entry{Session: Session{Peer: name, State: Idle, Since: time.Now()}}
	}
}

// dismiss forgets a configured peer.
func (t *sessions) dismiss(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byAddr, t.byName[name].Address)
	delete(t.byName, name)
}

// address is that of a configured peer, if it has one.
func (t *sessions) address(name string) netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[name].Address
}

// bind says which address a configured peer has now.
func (t *sessions) bind(name string, addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byName[name]
	delete(t.byAddr, s.Address)
	s.Address, s.ended = addr, false
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

// look hands f a session that is known.
func (t *sessions) look(addr netip.Addr, f func(*entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byAddr[addr]; e != nil {
		f(e)
	}
}

// update changes one session and returns it and whether it differs in state or problem. f may find the zero Session.
func (t *sessions) update(addr netip.Addr, f func(*entry)) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byAddr[addr]
	if s == nil {
		s = &entry{Session: Session{Peer: addr.String(), Address: addr, Dynamic: true, State: Idle}}
		t.byAddr[addr] = s
		if t.byName[s.Peer] == nil { // else a configured peer of that name has no address yet
			t.byName[s.Peer] = s
		}
	}
	return t.change(s, f)
}

func (t *sessions) updateName(name string, f func(*entry)) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byName[name]
	if s == nil { // dismissed meanwhile
		return Session{}, false
	}
	return t.change(s, f)
}

func (t *sessions) change(s *entry, f func(*entry)) (Session, bool) {
	before := *s
	f(s)
	if s.State != before.State || s.renew != before.renew || s.live != before.live {
		s.Since = time.Now()
		close(t.moved)
		t.moved = make(chan struct{})
	}
	return s.Session, s.State != before.State || s.Problem != before.Problem
}

// await waits until the peer can be dialled or must be made anew; false means that ctx ended first.
func (t *sessions) await(ctx context.Context, addr netip.Addr) bool {
	return t.until(ctx, addr, func(e entry) bool { return e.State == Active || e.renew })
}

// awaitTaken waits until gobgp has taken the connection.
func (t *sessions) awaitTaken(ctx context.Context, addr netip.Addr) {
	t.until(ctx, addr, func(e entry) bool { return e.State != Active })
}

func (t *sessions) until(ctx context.Context, addr netip.Addr, done func(entry) bool) bool {
	for {
		t.mu.Lock()
		moved := t.moved
		var now entry
		if e := t.byAddr[addr]; e != nil {
			now = *e
		}
		t.mu.Unlock()
		if done(now) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-moved:
		}
	}
}

// awaitAllGone waits until no session is established, but not longer than d.
func (t *sessions) awaitAllGone(d time.Duration) {
	late := time.After(d)
	for {
		t.mu.Lock()
		moved, up := t.moved, false
		for _, e := range t.byAddr {
			up = up || e.State == Established
		}
		t.mu.Unlock()
		if !up {
			return
		}
		select {
		case <-late:
			return
		case <-moved:
		}
	}
}

func (t *sessions) mustRenew(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	return e != nil && e.renew
}

// renewed takes note that the peer is made anew; after is how long it is left alone first.
func (t *sessions) renewed(addr netip.Addr) (after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	if e == nil {
		return 0
	}
	if e.cutOff {
		after = cutOff
	}
	e.renew, e.cutOff, e.State = false, false, Idle
	return after
}

func (t *sessions) forget(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byAddr[addr]; s != nil && s.Dynamic {
		delete(t.byAddr, addr)
		if t.byName[s.Peer] == s {
			delete(t.byName, s.Peer)
		}
	}
}

// report notes why a configured peer has no session and tells whoever listens, once per reason.
func (s *Speaker) report(name string, state State, problem string) {
	x, changed := s.sessions.updateName(name, func(x *entry) {
		if !x.live { // else the peer has connected to us meanwhile
			x.State, x.Problem = state, problem
		}
	})
	if changed {
		s.onSession(x)
	}
}

// stillLooking says that there is no address yet, unless there was one before.
func (s *Speaker) stillLooking(name string) {
	x, changed := s.sessions.updateName(name, func(x *entry) {
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
	s.sessions.update(peer, func(x *entry) { x.said = reason })
}

// peerEvent takes over what gobgp's state machine did.
func (s *Speaker) peerEvent(ev *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
	addr := ev.Peer.State.NeighborAddress
	if !addr.IsValid() {
		return
	}
	state := states[ev.Peer.State.SessionState]
	reason := ev.Peer.State.DisconnectReason
	x, changed := s.sessions.update(addr, func(x *entry) {
		lost := x.State == Established && state != Established
		if x.Dynamic && state == Established && !x.live {
			x.ended = false // whatever became of the session that we ended, this is another one
		}
		switch {
		case state == Established:
			x.ASN, x.RouterID, x.Problem = ev.Peer.State.PeerASN, ev.Peer.State.RouterID, ""
			x.Kept = false
			x.onLink = s.sessions.reaches(addr)
			x.untold, x.unsure = spoken(ev.Peer.State), false
		case x.ended:
		case lost && ev.Peer.State.DisconnectMessage == "":
			x.Problem = "the session ended without a reason"
		case state == Idle && ev.Peer.State.DisconnectMessage != "" && reason != api.PeerState_DISCONNECT_REASON_DECONFIGURED:
			x.Problem = explain(reason, ev.Peer.State.DisconnectMessage)
			if x.said != "" {
				x.Problem, x.said = "the peer has been shut down: "+x.said, ""
			}
		}
		if x.State == Established && state != Established {
			x.Losses++
		}
		if lost {
			x.Synced, x.Kept = false, reason == api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART
			x.renew = !x.Dynamic && reason != api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART
		}
		x.State, x.live = state, state == Established
	})
	if x.Dynamic && state == Established && s.sessions.isBanned(addr) {
		s.end(addr, "it sent too many prefixes within the last minute")
	}
	changed = changed && !s.sessions.isEnded(addr)
	if changed && !s.ending.Load() && (state == Established || state == Idle && x.Problem != "") {
		s.onSession(x)
	}
	if changed && state == Established {
		s.resend(addr)
	}
	if x.Dynamic && state == Idle && reason != api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART {
		s.sessions.forget(addr)
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
