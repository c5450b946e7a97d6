// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	down     = 2 * time.Second        // between the end of a process and the next one's start
	recovers = 10 * time.Second       // after the last start: what is lost later is not the restart's doing
	pace     = time.Millisecond       // between packets
	gone     = "192.168.20.0/24"      // the switch withdraws it while the daemon is down
	podAddr  = "10.10.10.1"           // on node 1
	client   = "192.168.10.64"        // beyond the switch
	drained  = 500 * time.Millisecond // for what is still under way
)

// end is one way in which a daemon ends.
type end struct {
	name  string
	sig   func(contender) syscall.Signal
	times int // how often, one restart after the other
	why   string
}

// restart measures what a restart of the node's daemon costs, graceful restart on both sides, under a packet per
// millisecond each way between a pod and a client beyond the switch, which runs FRR. It is mostly waiting, so that two
// ways at a time, and all contenders, do not disturb each other.
func (b *routedBench) restart(ctx context.Context) {
	term := func(contender) syscall.Signal { return syscall.SIGTERM }
	kill := func(contender) syscall.Signal { return syscall.SIGKILL }
	unit := func(c contender) syscall.Signal { return c.stop }
	const stops = "to routed SIGTERM is the stop for good: peers are told, routes go; a restart is SIGUSR2, as the unit file says"
	for two := range slices.Chunk([]end{
		{name: "kill-9", sig: kill, times: 1}, {name: "two-kills", sig: kill, times: 2},
		{name: "systemctl-restart", sig: unit, times: 1}, {name: "sigterm", sig: term, times: 1, why: stops},
	}, 2) {
		got := make([]tallies, len(two))
		for range b.samples(60, 1) {
			var wg sync.WaitGroup
			for i, x := range two {
				wg.Go(func() {
					more := together(ctx, b.all, func(ctx context.Context, c contender) (measured, error) {
						return restarted(ctx, c, x.sig(c), x.times)
					})
					if got[i] == nil {
						got[i] = tallies{}
					}
					got[i].merge(more)
				})
			}
			wg.Wait()
		}
		for i, x := range two {
			for _, peer := range []string{"bird", "frr"} {
				name := "routed/restart-" + x.name
				got[i].put(b.r, Bar{Name: name, Unit: Packets, Most: most(0), Reason: x.why}, "lost", peer)
				got[i].put(b.r, Bar{Name: name + "-stale-10s-later", Unit: Routes, Most: most(0)}, "not swept", peer)
			}
		}
	}
}

// merge adds samples of another turn.
func (t tallies) merge(more tallies) {
	for name, m := range more {
		mine := t[name]
		if mine == nil {
			t[name] = m
			continue
		}
		if mine.err == nil {
			mine.err = m.err
		}
		for k, v := range m.values {
			mine.values[k] = append(mine.values[k], v...)
		}
	}
}

func restarted(ctx context.Context, c contender, sig syscall.Signal, ends int) (measured, error) {
	g, err := newSegment(1)
	defer g.close()
	if err != nil {
		return nil, err
	}
	far, err := newHost("client")
	if err != nil {
		return nil, err
	}
	defer far.close()
	node := g.nodes[0]
	if err := g.beyond(far); err != nil {
		return nil, err
	}
	mls := setup{Self: switchAddr, Peers: []netip.Addr{node1Addr}, Switch: true, Retry: true, GR: true}
	if err := startFRR(ctx, g.mls, mls); err != nil {
		return nil, err
	}
	sleep(ctx, time.Second)
	s := setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}, Subnet: node1Pods, Accept: []string{"192.168.0.0/16"}, Retry: true, GR: true}
	base, err := node.routes()
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx, node, s); err != nil {
		return nil, err
	}
	in, out, err := g.streams(far)
	if err != nil {
		return nil, err
	}
	defer in.close()
	defer out.close()
	if err := flows(ctx, in, out); err != nil {
		return nil, fmt.Errorf("%w;%s", err, node.said())
	}
	full, err := node.routes()
	if err != nil {
		return nil, err
	}
	if full < base+2 {
		return nil, fmt.Errorf("%d routes, %d before it started;%s", full, base, node.said())
	}
	in.count()
	out.count()
	for i := range ends {
		node.kill(sig)
		if i == 0 {
			if err := g.mls.sh("ip addr del 192.168.20.1/24 dev p9"); err != nil {
				return nil, err
			}
		}
		sleep(ctx, down)
		s.Restart = true
		if err := c.start(ctx, node, s); err != nil {
			return nil, err
		}
		if i < ends-1 {
			sleep(ctx, down)
		}
	}
	sleep(ctx, recovers)
	in.stop()
	out.stop()
	sleep(ctx, drained)
	kept := 0.0
	if node.sh("ip route show "+gone+" | grep -q .") == nil {
		kept = 1
	}
	return measured{"lost": {float64(in.lost() + out.lost())}, "not swept": {kept}}, ctx.Err()
}

// beyond puts a client at the far side of the switch, pods on node 1, and a second segment that will go.
func (g *segment) beyond(far *host) error {
	if err := veth(far, "eth0", client+"/24", g.mls, "p9", "192.168.10.1/24"); err != nil {
		return err
	}
	if err := g.mls.sh("ip addr add 192.168.20.1/24 dev p9"); err != nil {
		return err
	}
	if err := far.sh("ip route add default via 192.168.10.1"); err != nil {
		return err
	}
	return g.nodes[0].sh("ip link add docker0 type bridge; ip addr add " + podAddr + "/24 dev docker0; ip link set docker0 up")
}

// streams sends a packet a millisecond from the client to the pod and from the pod to the client.
func (g *segment) streams(far *host) (in, out *stream, err error) {
	if in, err = newStream(far, client, g.nodes[0], podAddr); err != nil {
		return nil, nil, err
	}
	if out, err = newStream(g.nodes[0], podAddr, far, client); err != nil {
		in.close()
		return nil, nil, err
	}
	return in, out, nil
}

// flows waits until both ways have worked for half a second.
func flows(ctx context.Context, in, out *stream) error {
	for start := time.Now(); time.Since(start) < 30*time.Second && ctx.Err() == nil; {
		a, b := in.got.Load(), out.got.Load()
		sleep(ctx, 500*time.Millisecond)
		if in.got.Load() > a+400 && out.got.Load() > b+400 {
			return nil
		}
	}
	return fmt.Errorf("no packets: %d inwards, %d outwards arrived", in.got.Load(), out.got.Load())
}

// stream is one UDP sender and its receiver.
type stream struct {
	from, to net.PacketConn
	sent     atomic.Int64 // the number of the last packet
	got      atomic.Int64 // how many arrived
	end      chan struct{}
	once     sync.Once
	first    atomic.Int64 // packets after this one count
	arrived  map[int64]bool
	done     chan struct{} // arrived is complete
}

func newStream(from *host, src string, to *host, dst string) (*stream, error) {
	s := &stream{end: make(chan struct{}), done: make(chan struct{}), arrived: map[int64]bool{}}
	listen := func(h *host, addr string) (c net.PacketConn, err error) {
		err = h.ns.Do(func() (err error) { c, err = net.ListenPacket("udp4", addr+":0"); return err })
		return c, err
	}
	var err error
	if s.to, err = listen(to, dst); err != nil {
		return nil, err
	}
	if s.from, err = listen(from, src); err != nil {
		_ = s.to.Close()
		return nil, err
	}
	go s.receive()
	go s.send(s.to.LocalAddr())
	return s, nil
}

// send keeps the pace over the long run: what a late timer missed is made up for.
func (s *stream) send(to net.Addr) {
	start := time.Now()
	t := time.NewTicker(pace)
	defer t.Stop()
	for {
		select {
		case <-s.end:
			return
		case <-t.C:
		}
		for due := int64(time.Since(start) / pace); s.sent.Load() < due; {
			n := s.sent.Add(1)
			_, _ = s.from.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(n)), to) // an error is a lost packet
		}
	}
}

func (s *stream) receive() {
	defer close(s.done)
	buf := make([]byte, 64)
	for {
		n, _, err := s.to.ReadFrom(buf)
		if err != nil {
			return
		}
		if n == 8 {
			s.arrived[int64(binary.BigEndian.Uint64(buf))] = true
			s.got.Add(1)
		}
	}
}

// count begins to count: the next packet is the first that matters.
func (s *stream) count() { s.first.Store(s.sent.Load()) }

// lost is how many packets were sent since count and did not arrive. It ends the stream.
func (s *stream) lost() (n int64) {
	s.close()
	<-s.done
	for i := s.first.Load() + 1; i <= s.sent.Load(); i++ {
		if !s.arrived[i] {
			n++
		}
	}
	return n
}

func (s *stream) stop() { s.once.Do(func() { close(s.end) }) }

func (s *stream) close() {
	s.stop()
	_ = s.from.Close()
	_ = s.to.Close()
}
