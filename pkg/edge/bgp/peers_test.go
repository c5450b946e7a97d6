// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func (r *running) session(name string) Session {
	all, _ := r.Sessions(context.Background())
	i := slices.IndexFunc(all, func(x Session) bool { return x.Peer == name })
	if i < 0 {
		return Session{}
	}
	return all[i]
}

func TestTwoNamesOfOnePeer(t *testing.T) {
	loopback(t)
	m := run(t, mls())
	cfg := node(2, Peer{Name: "127.0.0.1"}, Peer{Name: "mls-a"}, Peer{Name: "mls-b"})
	n := New(cfg, nil, nil)
	var moved atomic.Bool
	n.lookUp = func(_ context.Context, name string) ([]netip.Addr, error) {
		switch {
		case name == "127.0.0.1", name == "mls-a":
			return []netip.Addr{addr("127.0.0.1")}, nil
		case moved.Load():
			return []netip.Addr{addr("127.0.0.1")}, nil
		}
		return nil, errors.New("no such host")
	}
	r := &running{Speaker: n}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	<-n.Started()
	announce(t, r, "10.10.20.0/24")
	within(t, 5*time.Second, "a session, and the other name's problem", func() bool {
		a, b := r.session("127.0.0.1"), r.session("mls-a")
		if a.State != Established {
			a, b = b, a
		}
		return a.State == Established && b.State == Idle && b.Problem == "127.0.0.1 is "+a.Peer+" already"
	})
	moved.Store(true)
	within(t, 5*time.Second, "one session is enough for both names", n.Synced)
	within(t, 5*time.Second, "a name that comes to mean the same", func() bool { return strings.HasSuffix(r.session("mls-b").Problem, "already") })
	n.SetPeers([]Peer{{Name: "mls-b"}})
	within(t, 5*time.Second, "the last name has the peer", func() bool { return r.session("mls-b").State == Established && m.has("10.10.20.0/24", "127.0.0.2") })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestADynamicNeighbourBecomesAPeer(t *testing.T) {
	loopback(t)
	m, n := run(t, mls()), run(t, node(2, Peer{Name: "127.0.0.1"}), "10.10.20.0/24")
	within(t, 3*time.Second, "the dynamic neighbour", func() bool { return m.session("127.0.0.2").Dynamic && m.has("10.10.20.0/24", "127.0.0.2") })
	m.SetPeers([]Peer{{Name: "127.0.0.2", Settings: Settings{Prefer: 200}}})
	within(t, 20*time.Second, "a session with the configured peer", func() bool {
		x := m.session("127.0.0.2")
		return !x.Dynamic && x.State == Established && m.has("10.10.20.0/24", "127.0.0.2") && n.session("127.0.0.1").State == Established
	})
}

func TestTheNextAddressOfAPeer(t *testing.T) {
	loopback(t)
	run(t, mls())
	s := New(node(2, Peer{Name: "mls"}), nil, nil)
	s.lookUp = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{addr("192.0.2.1"), addr("127.0.0.1")}, nil // no route leads to the first
	}
	r := &running{Speaker: s}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Started()
	announce(t, r)
	within(t, 5*time.Second, "a session with the second", func() bool { return r.session("mls").State == Established })
	if a := r.session("mls").Address; a != addr("127.0.0.1") {
		t.Errorf("a session with %s", a)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAnotherKeyWhileTheSessionStands(t *testing.T) {
	loopback(t)
	with := func(name, key string) []Peer { return []Peer{{Name: name, Settings: Settings{Password: key}}} }
	one, two := node(1, with("127.0.0.2", "old")...), node(2, with("127.0.0.1", "old")...)
	one.Hold, two.Hold = 3*time.Second, 3*time.Second
	m, n := run(t, one), run(t, two, "10.10.20.0/24")
	within(t, 5*time.Second, "a session", func() bool { return m.has("10.10.20.0/24", "127.0.0.2") })
	since := n.session("127.0.0.1").Since
	m.SetPeers(with("127.0.0.2", "new"))
	n.SetPeers(with("127.0.0.1", "new"))
	announce(t, n, "10.10.20.0/24", "10.10.30.0/24")
	within(t, 5*time.Second, "news over the session", func() bool { return m.has("10.10.30.0/24", "127.0.0.2") })
	n.SetPeers(with("127.0.0.1", "wrong"))
	within(t, 20*time.Second, "no session with a key that only one side has", func() bool { return m.session("127.0.0.2").State != Established })
	if x := m.session("127.0.0.2"); x.Losses != 1 {
		t.Errorf("lost %d times", x.Losses)
	}
	if x := n.session("127.0.0.1"); x.Losses == 0 && !x.Since.Equal(since) {
		t.Errorf("the session was begun anew at %s", x.Since)
	}
	m.SetPeers(with("127.0.0.2", "wrong"))
	within(t, 30*time.Second, "both sides have it", func() bool { return n.session("127.0.0.1").State == Established })
}
