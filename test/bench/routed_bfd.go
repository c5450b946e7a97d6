// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// blackhole measures a path that silently ends, BFD on: until the node has removed the routes over it. The switch runs
// FRR, and all three nodes are cut off at about the same time: they only wait.
func (b *routedBench) blackhole(ctx context.Context) {
	for _, x := range []struct {
		every time.Duration
		most  float64
	}{{50 * time.Millisecond, 160}, {300 * time.Millisecond, 950}} {
		all := tallies{}
		for range b.samples(20, 1) {
			t := together(ctx, b.all, func(ctx context.Context, c contender) (measured, error) { return cutOff(ctx, c, x.every) })
			all.merge(t)
		}
		for _, peer := range []string{"bird", "frr"} {
			noticed := Bar{Name: fmt.Sprintf("routed/blackhole-bfd-3x%d", x.every.Milliseconds()), Unit: Millis, Most: most(x.most)}
			all.put(b.r, noticed, "time", peer)
		}
	}
	t := take(ctx, b.samples(60, 1), b.all, underLoad)
	for _, peer := range []string{"bird", "frr"} {
		t.put(b.r, Bar{Name: "routed/blackhole-bfd-3x50-false-downs-under-load", Unit: Times, Most: most(0)}, "downs", peer)
	}
}

// remote is another node's subnet, beyond the switch.
var remote = netip.MustParsePrefix("10.10.30.0/24")

// withBFD is a node that runs c at a switch that runs FRR, BFD between them, and a second node where nothing runs.
func withBFD(ctx context.Context, c contender, every time.Duration) (*segment, *watch, error) {
	g, err := newSegment(2)
	if err != nil {
		return g, nil, err
	}
	mls := setup{Self: switchAddr, Peers: []netip.Addr{node1Addr, node2Addr}, Switch: true, Subnet: remote, Retry: true, BFD: every}
	if err := startFRR(ctx, g.mls, mls); err != nil {
		return g, nil, err
	}
	w, err := watchRoute(g.nodes[0], remote)
	if err != nil {
		return g, nil, err
	}
	s := setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}, Subnet: node1Pods, Accept: []string{"10.10.0.0/16", fed}, Retry: true, BFD: every}
	if err := c.start(ctx, g.nodes[0], s); err != nil {
		return g, w, err
	}
	if _, err := w.until(true, 30*time.Second); err != nil {
		return g, w, fmt.Errorf("%w;%s", err, g.nodes[0].said())
	}
	sleep(ctx, 4*time.Second) // BFD comes up after the session; there is nothing that all contenders show it by
	return g, w, ctx.Err()
}

func cutOff(ctx context.Context, c contender, every time.Duration) (measured, error) {
	g, w, err := withBFD(ctx, c, every)
	defer g.close()
	defer w.close()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := g.mls.sh("ip link set p1 nomaster"); err != nil {
		return nil, err
	}
	at, err := w.until(false, 15*time.Second)
	if err != nil {
		return nil, fmt.Errorf("BFD did not notice: %w;%s", err, g.nodes[0].said())
	}
	if at.Before(start) {
		return nil, fmt.Errorf("BFD took the session down by itself;%s", g.nodes[0].said())
	}
	return measured{"time": {millis(at.Sub(start))}}, nil
}

// underLoad counts how often BFD takes a session down by mistake while 100,000 routes come over it.
func underLoad(ctx context.Context, c contender) (measured, error) {
	const n, asn = 100_000, 65002
	g, w, err := withBFD(ctx, c, 50*time.Millisecond)
	defer g.close()
	defer w.close()
	if err != nil {
		return nil, err
	}
	base, err := g.nodes[0].routes()
	if err != nil {
		return nil, err
	}
	f, err := feed(ctx, g.nodes[1], asn, switchAddr)
	if err != nil {
		return nil, err
	}
	defer f.close()
	if err := f.send(updates(n, asn, nextHops())); err != nil {
		return nil, err
	}
	if _, err := g.nodes[0].await(ctx, time.Minute, "routes", func(have int) bool { return have >= base+n }); err != nil {
		return nil, err
	}
	f.close()
	if _, err := g.nodes[0].await(ctx, time.Minute, "routes withdrawn", func(have int) bool { return have <= base }); err != nil {
		return nil, err
	}
	downs := 0.0
	for len(w.events) > 0 {
		if e := <-w.events; !e.there {
			downs++
		}
	}
	return measured{"downs": {downs}}, nil
}
