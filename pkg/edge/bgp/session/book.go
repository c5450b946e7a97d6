// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Book is what we know of every peer's session. Configured peers are there from the start, by name.
type Book struct {
	mu     sync.Mutex
	byName map[string]*Entry
	byAddr map[netip.Addr]*Entry
	moved  chan struct{}            // closed and renewed when any state changes
	banned map[netip.Addr]time.Time // dynamic neighbours that sent too much, and until when
	// reaches says which addresses connected links lead to, as of the last Reachable.
	reaches func(netip.Addr) bool
}

// Entry is a session, and what only its keepers need to know.
type Entry struct {
	Session
	Renew  bool // lost for good: begin anew, without the rest that gobgp takes after a failure
	OnLink bool // it could be reached over a connected link
	CutOff bool // it sent too much: begin anew only after a minute
	Live   bool // gobgp holds it for established
	Ended  bool // by us: what gobgp says of it is no news
	Unsure bool // it may have missed something: see resend
	// Untold are the families whose End-of-RIB (RFC 4724 section 2) has not come yet.
	Untold map[bgp.Family]bool
	Said   string // why the peer ends the session, in its own words
}

// New returns a book in which the configured peers stand.
func New(names ...string) *Book {
	t := &Book{
		byName: map[string]*Entry{}, byAddr: map[netip.Addr]*Entry{}, moved: make(chan struct{}), banned: map[netip.Addr]time.Time{},
		reaches: func(netip.Addr) bool { return false },
	}
	for _, name := range names {
		t.Expect(name)
	}
	return t
}

// Expect makes room for a configured peer.
func (t *Book) Expect(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byName[name]; e == nil || e.Dynamic { // one of that name may be about to go
		t.byName[name] = &Entry{Session: Session{Peer: name, State: Idle, Since: time.Now()}}
	}
}

// Dismiss forgets a configured peer.
func (t *Book) Dismiss(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(t.byName[name])
	delete(t.byName, name)
}

// Address is that of a configured peer, if it has one.
func (t *Book) Address(name string) netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[name].Address
}

// Bind says which address a configured peer has now. Where another session has it, nothing changes and that one is
// returned: two names may mean one router, and a dynamic neighbour may become a configured peer.
func (t *Book) Bind(name string, addr netip.Addr) (other Session, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byName[name]
	if has := t.byAddr[addr]; has != nil && has != s {
		if !has.Dynamic {
			s.SameAs = has.Peer
		}
		return has.Session, false
	}
	t.release(s)
	s.Address, s.Ended, s.SameAs = addr, false, ""
	t.byAddr[addr] = s
	return Session{}, true
}

// Release says that a configured peer has no address any more.
func (t *Book) Release(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byName[name]; s != nil {
		t.release(s)
	}
}

func (t *Book) release(s *Entry) {
	if t.byAddr[s.Address] == s {
		delete(t.byAddr, s.Address)
	}
	s.Address = netip.Addr{}
}

// State is that of the session with a peer; Idle when there is none.
func (t *Book) State(addr netip.Addr) State {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byAddr[addr]; s != nil {
		return s.State
	}
	return Idle
}

// Look hands f a session that is known.
func (t *Book) Look(addr netip.Addr, f func(*Entry)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byAddr[addr]; e != nil {
		f(e)
	}
}

// Update changes one session and returns it and whether it differs in state or problem. f may find the zero Session.
func (t *Book) Update(addr netip.Addr, f func(*Entry)) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byAddr[addr]
	if s == nil {
		s = &Entry{Session: Session{Peer: addr.String(), Address: addr, Dynamic: true, State: Idle}}
		t.byAddr[addr] = s
		if t.byName[s.Peer] == nil { // else a configured peer of that name has no address yet
			t.byName[s.Peer] = s
		}
	}
	return t.change(s, f)
}

// UpdateName is Update for a configured peer.
func (t *Book) UpdateName(name string, f func(*Entry)) (Session, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byName[name]
	if s == nil { // dismissed meanwhile
		return Session{}, false
	}
	return t.change(s, f)
}

func (t *Book) change(s *Entry, f func(*Entry)) (Session, bool) {
	before := *s
	f(s)
	if s.State != before.State || s.Renew != before.Renew || s.Live != before.Live {
		s.Since = time.Now()
		close(t.moved)
		t.moved = make(chan struct{})
	}
	return s.Session, s.State != before.State || s.Problem != before.Problem
}

// Await waits until the peer can be dialled or must be made anew; false means that ctx ended first.
func (t *Book) Await(ctx context.Context, addr netip.Addr) bool {
	return t.until(ctx, addr, func(e Entry) bool { return e.State == Active || e.Renew })
}

// AwaitTaken waits until gobgp has taken the connection.
func (t *Book) AwaitTaken(ctx context.Context, addr netip.Addr) {
	t.until(ctx, addr, func(e Entry) bool { return e.State != Active })
}

func (t *Book) until(ctx context.Context, addr netip.Addr, done func(Entry) bool) bool {
	for {
		t.mu.Lock()
		moved := t.moved
		var now Entry
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

// AwaitAllGone waits until no session is established, but not longer than d.
func (t *Book) AwaitAllGone(d time.Duration) {
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

// MustRenew reports that the peer is to be made anew.
func (t *Book) MustRenew(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	return e != nil && e.Renew
}

// Stuck reports that there is no session and none is in the making, nor is one waited for to come back.
func (t *Book) Stuck(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	return e == nil || !e.Live && !e.Kept && (e.State == Active || e.State == Idle)
}

// Renewed takes note that the peer is made anew; after is how long it is left alone first.
func (t *Book) Renewed(addr netip.Addr) (after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	if e == nil {
		return 0
	}
	if e.CutOff {
		after = cutOff
	}
	e.Renew, e.CutOff, e.State = false, false, Idle
	return after
}

// Forget drops a dynamic neighbour.
func (t *Book) Forget(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byAddr[addr]; s != nil && s.Dynamic {
		delete(t.byAddr, addr)
		if t.byName[s.Peer] == s {
			delete(t.byName, s.Peer)
		}
	}
}

// End notes that we end a session, and reports whether there is one to end.
func (t *Book) End(addr netip.Addr) (live bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	if e == nil {
		return false
	}
	live = e.Live && !e.Ended
	e.Ended = true
	return live
}

// IsEnded reports that we have ended the session.
func (t *Book) IsEnded(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byAddr[addr]
	return e != nil && e.Ended
}

// AwaitQuiet waits until gobgp holds no session with the peer any more.
func (t *Book) AwaitQuiet(ctx context.Context, addr netip.Addr) {
	t.until(ctx, addr, func(e Entry) bool { return !e.Live })
}

// cutOff is for how long a peer that sent too much is left alone.
const cutOff = time.Minute

// Ban keeps a dynamic neighbour away for as long as one is cut off.
func (t *Book) Ban(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.banned, func(_ netip.Addr, until time.Time) bool { return time.Now().After(until) })
	t.banned[addr] = time.Now().Add(cutOff)
}

// IsBanned reports that it is kept away still.
func (t *Book) IsBanned(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().Before(t.banned[addr])
}

// Reaches reports that a connected link leads to a, as of the last Reachable. It may be called only from within Update, so
// that no Reachable comes between.
func (t *Book) Reaches(a netip.Addr) bool { return t.reaches(a) }

// Reachable says which addresses connected links lead to now, and returns the peers that they do not lead to any more.
func (t *Book) Reachable(reaches func(netip.Addr) bool) (lost []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reaches = reaches
	for addr, e := range t.byAddr {
		now := reaches(addr)
		if e.OnLink && !now {
			lost = append(lost, addr)
		}
		e.OnLink = now
	}
	return lost
}

// All are all sessions, sorted by name.
func (t *Book) All() []Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Session
	for _, e := range t.byName {
		out = append(out, e.Session)
	}
	slices.SortFunc(out, func(a, b Session) int { return strings.Compare(a.Peer, b.Peer) })
	return out
}
