// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/router"
)

// told is a speaker that has told a table, and counts how often it is asked for all of it.
type told struct {
	table []route.Learned
	fresh []route.Learned
	asked atomic.Int32
}

func (s *told) Take() []route.Learned               { x := s.fresh; s.fresh = nil; return x }
func (s *told) Learned() []route.Learned            { s.asked.Add(1); return s.table }
func (s *told) Announce([]route.Announcement) error { return nil }
func (s *told) Synced() bool                        { return true }
func (s *told) Reachable(func(netip.Addr) bool)     {}

// counted counts how often the kernel's table is read.
type counted struct {
	*fib.Table
	reads int
}

func (k *counted) Read() (route.FIB, error) { k.reads++; return k.Table.Read() }

// TestPodsCostNoFullRound has pods of two kinds come and go in a real kernel: on a bridge, and with a link, the gateway's
// address and a route for each.
func TestPodsCostNoFullRound(t *testing.T) {
	n := nstest.New(t)
	nstest.Sh(t, n, `
		ip link set lo up
		ip link add ens18 type veth peer p1; ip link set p1 up; ip link set ens18 up; ip addr add 10.20.30.62/24 dev ens18
		ip link add cni0 type bridge; ip addr add 10.10.10.1/24 dev cni0; ip link set cni0 up
		ip link add first type veth peer first0; ip link set first up; ip link set first0 up; ip link set first master cni0
		echo 1 >/proc/sys/net/ipv4/ip_forward`)
	via := netip.MustParseAddr("10.20.30.1")
	s := &told{}
	for _, p := range []string{"10.10.20.0/24", "10.10.30.0/24", "0.0.0.0/0"} { // the last is refused
		s.table = append(s.table, route.Learned{Prefix: netip.MustParsePrefix(p), Via: []route.Via{{NextHop: via, Peer: via}}})
	}
	s.fresh = s.table
	k := &counted{}
	var watch *fib.Watch
	nstest.Do(t, n, func() (err error) {
		if k.Table, err = fib.Open(); err == nil {
			watch, err = k.Watch()
		}
		return err
	})
	defer k.Close()
	own := netip.MustParsePrefix("10.10.10.0/24")
	intents := []route.Intent{{Prefix: own, Why: "pod subnet", Sink: true}}
	pol := route.Policy{Accept: []route.Accept{route.AcceptAll(netip.MustParsePrefix("10.10.0.0/16"))}, Own: []netip.Prefix{own}}
	r := router.New(router.Options{Speaker: s, Kernel: k, Policy: pol, Intents: intents, Log: slog.New(slog.DiscardHandler)})
	events := make(chan fib.Event, 1000)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _ = watch.Run(ctx, func(e fib.Event) { events <- e }) }()
	settle := func() { // as wiring.heard and the loop do
		t.Helper()
		for quiet := time.NewTimer(300 * time.Millisecond); ; {
			select {
			case e := <-events:
				quiet.Reset(300 * time.Millisecond)
				switch {
				case e.Gone.IsValid():
					r.Gone(e.Gone)
				case e.Forwarding:
				case e.Link != 0:
					r.LinkChanged(e.Link)
				default:
					r.TopologyChanged(e.Routes || e.Lost)
				}
				r.SetIntents([]route.Intent{intents[0]})
			case <-quiet.C:
				return
			}
			if err := r.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	settle()
	reads, asked := k.reads, s.asked.Load()
	for i := range 3 {
		nstest.Sh(t, n, fmt.Sprintf(`
			ip link add a%d type veth peer b%d; ip link set a%d master cni0; ip link set a%d up; ip link set b%d up
			ip link add c%d type veth peer d%d; ip addr add 10.10.10.1/32 dev c%d; ip link set c%d up; ip link set d%d up
			ip route add 10.10.10.%d dev c%d scope link`, i, i, i, i, i, i, i, i, i, i, 5+i, i))
		settle()
	}
	for i := range 3 {
		nstest.Sh(t, n, fmt.Sprintf("ip link del a%d; ip link del c%d", i, i))
		settle()
	}
	if k.reads != reads || s.asked.Load() != asked {
		t.Errorf("6 pods that came and went made it read the kernel's table %d times, and the speaker's %d times", k.reads-reads, s.asked.Load()-asked)
	}
}
