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
	within(t, 10*time.Second, "a session with the configured peer", func() bool {
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
