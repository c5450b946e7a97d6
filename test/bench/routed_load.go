// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// couple is a node with a daemon and, at the other end of its wire, the feeder's host.
type couple struct {
	node, far *host
	session   *feeder
}

// newCouple starts c on a node and brings up a session with it.
func newCouple(ctx context.Context, c contender) (*couple, error) {
	p := &couple{}
	var err error
	if p.node, err = newHost("node1"); err != nil {
		return nil, err
	}
	if p.far, err = newHost("feeder"); err != nil {
		return nil, err
	}
	if err := veth(p.node, "eth0", node1Addr.String()+"/24", p.far, "p1", switchAddr.String()+"/24"); err != nil {
		return p, err
	}
	s := setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}, Subnet: node1Pods, Accept: []string{fed}, Retry: true}
	if err := c.start(ctx, p.node, s); err != nil {
		return p, err
	}
	return p, p.connect(ctx)
}

func (p *couple) connect(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if p.session, err = feed(ctx, p.far, switchASN, node1Addr); err != nil {
		return fmt.Errorf("%w;%s", err, p.node.said())
	}
	return nil
}

func (p *couple) close() {
	if p == nil {
		return
	}
	if p.session != nil {
		p.session.close()
	}
	for _, h := range []*host{p.node, p.far} {
		if h != nil {
			h.close()
		}
	}
}

// nextHops are 16 neighbours on the segment.
func nextHops() (hops []netip.Addr) {
	for i := range 16 {
		hops = append(hops, netip.AddrFrom4([4]byte{10, 20, 30, byte(101 + i)}))
	}
	return hops
}

// load measures a whole table from Established to the last route in the kernel.
func (b *routedBench) load(ctx context.Context) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		name := fmt.Sprintf("routed/%d-routes", n)
		msgs := updates(n, switchASN, nextHops())
		t := take(ctx, b.samples(12, 1), b.all, func(ctx context.Context, c contender) (measured, error) {
			sleep(ctx, 500*time.Millisecond) // until the kernel has cleared away the namespaces of the one before
			p, err := newCouple(ctx, c)
			defer p.close()
			if err != nil {
				return nil, err
			}
			return p.load(ctx, n, msgs)
		})
		t.put(b.r, Bar{Name: name + "/time", Unit: Millis, Want: 1}, "time", "frr")
		t.put(b.r, Bar{Name: name + "/cpu", Unit: Millis, Want: 1}, "cpu", "frr")
		t.put(b.r, Bar{Name: name + "/peak-memory", Unit: Mega, Want: 1}, "memory", "frr")
		want := 0.0
		if n == 100_000 {
			want = 1 / 2.3
		}
		t.put(b.r, Bar{Name: name + "/time", Unit: Millis, Want: want}, "time", "bird")
		t.put(b.r, Bar{Name: name + "/cpu", Unit: Millis}, "cpu", "bird")
		t.put(b.r, Bar{Name: name + "/peak-memory", Unit: Mega}, "memory", "bird")
	}
}

// load feeds one table.
func (p *couple) load(ctx context.Context, n int, msgs []byte) (measured, error) {
	base, err := p.node.routes()
	if err != nil {
		return nil, err
	}
	cpu0, err := p.node.cpu()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var sent error
	var wg sync.WaitGroup
	wg.Go(func() { sent = p.session.send(msgs) })
	end, err := p.node.await(ctx, time.Minute, fmt.Sprintf("%d routes", n), func(have int) bool { return have >= base+n })
	if err != nil {
		return nil, err
	}
	if wg.Wait(); sent != nil {
		return nil, sent
	}
	sleep(ctx, 500*time.Millisecond) // what it still does about them counts as CPU time and memory
	cpu1, err := p.node.cpu()
	if err != nil {
		return nil, err
	}
	peak, err := p.node.memory("VmHWM")
	if err != nil {
		return nil, err
	}
	// A namespace that goes with 100,000 routes in it keeps the kernel's RTNL lock from the next contender for seconds.
	p.session.close()
	if _, err := p.node.await(ctx, time.Minute, "routes withdrawn", func(have int) bool { return have <= base }); err != nil {
		return nil, err
	}
	return measured{"time": {millis(end.Sub(start))}, "cpu": {millis(cpu1 - cpu0)}, "memory": {peak}}, nil
}

// idle measures what a daemon costs that has one peer and nothing to do.
func (b *routedBench) idle(ctx context.Context) {
	const watched = 10 * time.Second
	t := together(ctx, b.all, func(ctx context.Context, c contender) (measured, error) {
		p, err := newCouple(ctx, c)
		defer p.close()
		if err != nil {
			return nil, err
		}
		sleep(ctx, 3*time.Second) // until all is said after the start
		cpu0, err := p.node.cpu()
		if err != nil {
			return nil, err
		}
		sleep(ctx, watched)
		cpu1, err := p.node.cpu()
		if err != nil {
			return nil, err
		}
		rss, err := p.node.memory("VmRSS")
		return measured{"cpu": {100 * float64(cpu1-cpu0) / float64(watched)}, "memory": {rss}}, err
	})
	for _, peer := range []string{"bird", "frr"} {
		t.put(b.r, Bar{Name: "routed/idle/cpu", Unit: Percent, Most: most(0.1)}, "cpu", peer)
		t.put(b.r, Bar{Name: "routed/idle/memory", Unit: Mega, Most: most(40)}, "memory", peer)
	}
}

// together takes one sample of every contender at the same time: for what is mostly waiting.
func together(ctx context.Context, all []contender, sample sampler) tallies {
	t := tallies{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			one := take(ctx, 1, []contender{c}, sample)
			mu.Lock()
			defer mu.Unlock()
			t[c.name] = one[c.name]
		})
	}
	wg.Wait()
	return t
}
