// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// segment is a switch and nodes on one bridge.
type segment struct {
	mls   *host
	nodes []*host
}

// newSegment makes a switch at 10.20.30.1 and n nodes from 10.20.30.11 on. Nothing runs there yet.
func newSegment(n int) (*segment, error) {
	g := &segment{}
	var err error
	if g.mls, err = newHost("mls"); err != nil {
		return nil, err
	}
	if err := g.mls.sh(fmt.Sprintf(`ip link add vlan30 type bridge; ip addr add %s/24 dev vlan30; ip link set vlan30 up
		echo 1 >/proc/sys/net/ipv4/ip_forward`, switchAddr)); err != nil {
		return g, err
	}
	for i := range n {
		node, err := newHost(fmt.Sprintf("node%d", i+1))
		if err != nil {
			return g, err
		}
		g.nodes = append(g.nodes, node)
		port := fmt.Sprintf("p%d", i+1)
		if err := veth(node, "eth0", fmt.Sprintf("10.20.30.%d/24", 11+i), g.mls, port, ""); err != nil {
			return g, err
		}
		if err := g.mls.sh("ip link set " + port + " master vlan30"); err != nil {
			return g, err
		}
	}
	return g, nil
}

func (g *segment) close() {
	if g == nil {
		return
	}
	for _, h := range append(g.nodes, g.mls) {
		h.close()
	}
}

// announce measures a single prefix from the decision on node 1 to the kernel of node 2, over a switch that adds next
// to nothing.
func (b *routedBench) announce(ctx context.Context) {
	t := take(ctx, 2, b.contenders("routed", "bird"), func(ctx context.Context, c contender) (measured, error) {
		return announced(ctx, c, b.samples(4, 5))
	})
	t.put(b.r, Bar{Name: "routed/announce-to-other-node", Unit: Millis, Most: most(2)}, "announce", "bird")
	t.put(b.r, Bar{Name: "routed/withdraw-to-other-node", Unit: Millis}, "withdraw", "bird")
}

// announced takes a number of samples with one pair of nodes.
func announced(ctx context.Context, c contender, times int) (measured, error) {
	g, err := newSegment(2)
	defer g.close()
	if err != nil {
		return nil, err
	}
	mls := setup{Self: switchAddr, Peers: []netip.Addr{node1Addr, node2Addr}, Switch: true, Retry: true}
	n1 := setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}, Subnet: node1Pods, Accept: []string{"10.10.0.0/16"}, Retry: true, Held: true}
	n2 := setup{Self: node2Addr, Peers: []netip.Addr{switchAddr}, Subnet: node2Pods, Accept: []string{"10.10.0.0/16"}, Retry: true}
	if err := startBird(ctx, g.mls, mls); err != nil {
		return nil, err
	}
	w, err := watchRoute(g.nodes[1], node1Pods)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for i, s := range []setup{n1, n2} {
		if err := c.start(ctx, g.nodes[i], s); err != nil {
			return nil, err
		}
	}
	sleep(ctx, 5*time.Second) // until all sessions stand; there is nothing that all contenders show it by
	pull, err := trigger(g.nodes[0], c.name)
	if err != nil {
		return nil, fmt.Errorf("%w;%s", err, g.nodes[0].said())
	}
	if err := pull(true); err != nil {
		return nil, fmt.Errorf("%w;%s", err, g.nodes[0].said())
	}
	if _, err := w.until(true, 15*time.Second); err != nil {
		return nil, fmt.Errorf("%w;%s%s", err, g.nodes[0].said(), g.nodes[1].said())
	}
	got := measured{}
	for range times {
		for _, there := range []bool{false, true} {
			sleep(ctx, 50*time.Millisecond)
			start := time.Now()
			if err := pull(there); err != nil {
				return nil, err
			}
			at, err := w.until(there, 5*time.Second)
			if err != nil {
				return nil, err
			}
			what := map[bool]string{true: "announce", false: "withdraw"}[there]
			got[what] = append(got[what], millis(at.Sub(start)))
		}
	}
	return got, ctx.Err()
}

// carrier measures a node that loses its link: until the routes over it are gone.
func (b *routedBench) carrier(ctx context.Context) {
	const n = 100
	msgs := updates(n, switchASN, nextHops())
	couples := map[string]*couple{}
	defer func() {
		for _, p := range couples {
			p.close()
		}
	}()
	t := take(ctx, b.samples(6, 3), b.all, func(ctx context.Context, c contender) (measured, error) {
		p := couples[c.name]
		var err error
		if p == nil {
			p, err = newCouple(ctx, c)
			couples[c.name] = p
		} else {
			err = p.connect(ctx)
		}
		if err != nil {
			return nil, err
		}
		return p.loseCarrier(ctx, n, msgs)
	})
	for _, peer := range []string{"bird", "frr"} {
		t.put(b.r, Bar{Name: "routed/carrier-loss", Unit: Millis, Most: most(20)}, "time", peer)
	}
}

func (p *couple) loseCarrier(ctx context.Context, n int, msgs []byte) (measured, error) {
	base, err := p.node.routes()
	if err != nil {
		return nil, err
	}
	if err := p.session.send(msgs); err != nil {
		return nil, err
	}
	if _, err := p.node.await(ctx, 10*time.Second, "routes", func(have int) bool { return have >= base+n }); err != nil {
		return nil, err
	}
	sleep(ctx, 300*time.Millisecond)
	start := time.Now()
	if err := p.far.setDown("p1"); err != nil {
		return nil, err
	}
	end, err := p.node.await(ctx, 20*time.Second, "routes gone", func(have int) bool { return have <= base })
	if err != nil {
		return nil, err
	}
	p.session.close()
	return measured{"time": {millis(end.Sub(start))}}, p.far.sh("ip link set p1 up")
}

// coldStart measures a node that boots: from exec to its own subnet in the kernel of a switch that runs FRR, every
// timer at its default.
func (b *routedBench) coldStart(ctx context.Context) {
	t := take(ctx, b.samples(20, 1), b.all, func(ctx context.Context, c contender) (measured, error) {
		g, err := newSegment(1)
		defer g.close()
		if err != nil {
			return nil, err
		}
		if err := startFRR(ctx, g.mls, setup{Self: switchAddr, Peers: []netip.Addr{node1Addr}, Switch: true}); err != nil {
			return nil, err
		}
		w, err := watchRoute(g.mls, node1Pods)
		if err != nil {
			return nil, err
		}
		defer w.close()
		sleep(ctx, 2*time.Second) // the switch has been up for long
		start := time.Now()
		if err := c.start(ctx, g.nodes[0], setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}, Subnet: node1Pods, Accept: []string{"10.10.0.0/16"}}); err != nil {
			return nil, err
		}
		at, err := w.until(true, 30*time.Second)
		if err != nil {
			return nil, fmt.Errorf("%w;%s", err, g.nodes[0].said())
		}
		return measured{"time": {millis(at.Sub(start))}}, nil
	})
	for _, peer := range []string{"bird", "frr"} {
		t.put(b.r, Bar{Name: "routed/exec-to-subnet-in-switch", Unit: Millis, Most: most(2000)}, "time", peer)
	}
}
