// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// end notes that we end a session, and reports whether there is one to end.
func (t *sessions) end(addr netip.Addr) (live bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	if e == nil {
		return false
	}
	live = e.live && !e.ended
	e.ended = true
	return live
}

// isEnded reports that we have ended the session.
func (t *sessions) isEnded(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	return e != nil && e.ended
}

// awaitQuiet waits until gobgp holds no session with the peer any more.
func (t *sessions) awaitQuiet(ctx context.Context, addr netip.Addr) {
	t.until(ctx, addr, func(e entry) bool { return !e.live })
}

// cutOff is for how long a peer that sent too much is left alone.
const cutOff = time.Minute

func (t *sessions) ban(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.banned, func(_ netip.Addr, until time.Time) bool { return time.Now().After(until) })
	t.banned[addr] = time.Now().Add(cutOff)
}

func (t *sessions) isBanned(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().Before(t.banned[addr])
}

// Reachable says which peers connected links lead to. A session whose link is gone is dropped at once, with all that was
// learned over it: gobgp would wait for the hold time. Peers that are further away are left to BGP's own timers.
func (s *Speaker) Reachable(reaches func(netip.Addr) bool) {
	var lost []netip.Addr
	s.sessions.mu.Lock()
	s.sessions.reaches = reaches
	for addr, e := range s.sessions.byAddr {
		now := reaches(addr)
		if e.onLink && !now {
			lost = append(lost, addr)
		}
		e.onLink = now
	}
	s.sessions.mu.Unlock()
	for _, addr := range lost {
		s.drop(addr, "the link to the peer is down", false)
	}
}

// drop ends an established session and forgets all that was learned by it. A configured peer is made anew, after a
// minute if it is cutOff.
func (s *Speaker) drop(addr netip.Addr, problem string, cutOff bool) {
	if s.sessions.state(addr) != Established {
		return
	}
	x, _ := s.sessions.update(addr, func(x *entry) {
		x.Losses++
		x.State, x.Synced, x.Problem, x.renew, x.cutOff = Idle, false, problem, !x.Dynamic, cutOff
	})
	s.onSession(x)
	if x.Dynamic && cutOff {
		s.sessions.ban(addr)
	}
	s.end(addr, problem)
}

// end ends a session with a reason that the peer is told. gobgp forgets what was learned by it once it has taken in all
// that was under way; a peer that is deleted before leaves routes behind that nobody ever withdraws.
func (s *Speaker) end(addr netip.Addr, why string) {
	if s.sessions.end(addr) {
		_ = s.srv.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{Address: addr.String(), Communication: why}) // it may have gone
	}
}
