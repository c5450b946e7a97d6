// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// scaleSizes are how many nodes one switch is given; docs/scale.md extrapolates from them.
var scaleSizes = []int{100, 250, 500}

// scaleSwitch is the switch of many nodes, which are 10.20.1.0 and those that follow.
var scaleSwitch = netip.MustParseAddr("10.20.0.1")

// scale measures one switch that many nodes connect to at once: each tells one pod subnet and hears of all others. The
// nodes are simulated in this process: they cost next to nothing.
func (b *routedBench) scale(ctx context.Context) {
	all := []contender{
		{name: "routed", start: switchOurs(filepath.Join(b.root, "bin", "routed"))},
		{name: "bird", start: switchBird},
	}
	for _, n := range scaleSizes {
		t := take(ctx, 1, all, func(ctx context.Context, c contender) (measured, error) { return manyNodes(ctx, c, n) })
		for _, m := range []struct {
			name string
			unit Unit
		}{{"time", Millis}, {"cpu", Millis}, {"memory", Mega}, {"messages", Times}, {"change", Millis}} {
			t.put(b.r, Bar{Name: fmt.Sprintf("routed/scale/%d-nodes/%s", n, m.name), Unit: m.unit}, m.name, "bird")
		}
	}
}

func switchOurs(bin string) func(context.Context, *host, setup) error {
	return func(_ context.Context, h *host, _ setup) error {
		return h.start(bin, "--node=mls", "--listen-range=10.20.0.0/16", "--accept=10.64.0.0/10", "--router-id="+scaleSwitch.String(),
			"--node-file="+h.dir+"/node.json", "--socket="+h.dir+"/routed.sock", "--cni-conf-dir="+h.dir, "--portald-socket="+h.dir+"/none")
	}
}

func switchBird(_ context.Context, h *host, _ setup) error {
	path, err := h.write("bird.conf", `router id `+scaleSwitch.String()+`;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol bgp nodes { local `+scaleSwitch.String()+` as 64512; neighbor range 10.20.0.0/16 external; ipv4 { import all; export all; }; }
`)
	if err != nil {
		return err
	}
	return h.start("/usr/sbin/bird", "-f", "-c", path, "-s", h.dir+"/bird.ctl", "-P", h.dir+"/bird.pid")
}

// simulated is one node: its session, and what it has heard.
type simulated struct {
	*feeder
	addr     netip.Addr
	pods     netip.Prefix
	messages *atomic.Int64

	mu    sync.Mutex
	known map[string]bool // prefixes as they come on the wire
}

// simulate connects node number i.
func simulate(ctx context.Context, h *host, i int, messages *atomic.Int64) (*simulated, error) {
	s := &simulated{
		addr:     netip.AddrFrom4([4]byte{10, 20, byte(1 + i>>8), byte(i)}),
		pods:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>8), byte(i), 0}), 24),
		messages: messages, known: map[string]bool{},
	}
	var last error
	for ctx.Err() == nil {
		var conn net.Conn
		last = h.ns.Do(func() (err error) {
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.addr, 0))}
			conn, err = d.Dial("tcp", netip.AddrPortFrom(scaleSwitch, 179).String())
			return err
		})
		if last == nil {
			if last = shake(conn, uint32(4200000000+i)); last == nil {
				s.feeder = &feeder{conn: conn, stop: make(chan struct{})}
				go s.keep()
				go s.listen()
				return s, nil
			}
			_ = conn.Close()
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil, fmt.Errorf("node %d: %w", i, last)
}

// listen counts what the switch says.
func (s *simulated) listen() {
	defer s.close()
	for {
		typ, body, err := readMessage(s.conn)
		if err != nil {
			return
		}
		s.messages.Add(1)
		if typ != msgUpdate || len(body) < 4 {
			continue
		}
		gone := int(binary.BigEndian.Uint16(body))
		attrs := int(binary.BigEndian.Uint16(body[2+gone:]))
		s.mu.Lock()
		eachPrefix(body[2:2+gone], func(p string) { delete(s.known, p) })
		eachPrefix(body[4+gone+attrs:], func(p string) { s.known[p] = true })
		s.mu.Unlock()
	}
}

func (s *simulated) knows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known)
}

// eachPrefix walks the prefixes of an UPDATE's part (RFC 4271 section 4.3).
func eachPrefix(b []byte, f func(string)) {
	for len(b) > 0 {
		size := 1 + (int(b[0])+7)/8
		if size > len(b) {
			return
		}
		f(string(b[:size]))
		b = b[size:]
	}
}

// tell announces the node's pods, or takes them back.
func (s *simulated) tell(up bool) error {
	nlri := append([]byte{byte(s.pods.Bits())}, s.pods.Addr().AsSlice()[:3]...)
	if !up {
		return s.send(message(msgUpdate, append(append([]byte{0, byte(len(nlri))}, nlri...), 0, 0)))
	}
	attrs := []byte{0x40, 1, 1, 0, 0x40, 2, 6, 2, 1}
	attrs = binary.BigEndian.AppendUint32(attrs, uint32(4200000000+(int(s.addr.As4()[2])-1)<<8+int(s.addr.As4()[3])))
	attrs = append(append(attrs, 0x40, 3, 4), s.addr.AsSlice()...)
	body := append(binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs))), attrs...)
	return s.send(message(msgUpdate, append(body, nlri...)))
}

// manyNodes lets n nodes loose on a switch.
func manyNodes(ctx context.Context, c contender, n int) (measured, error) {
	mls, err := newHost("mls")
	if err != nil {
		return nil, err
	}
	defer mls.close()
	far, err := newHost("nodes")
	if err != nil {
		return nil, err
	}
	defer far.close()
	if err := veth(mls, "eth0", scaleSwitch.String()+"/16", far, "p1", ""); err != nil {
		return nil, err
	}
	var addrs strings.Builder
	for i := range n {
		fmt.Fprintf(&addrs, "addr add 10.20.%d.%d/16 dev p1\n", 1+i>>8, byte(i))
	}
	path, err := far.write("addrs", addrs.String())
	if err != nil {
		return nil, err
	}
	if err := far.sh("ip -batch " + path); err != nil {
		return nil, err
	}
	if err := c.start(ctx, mls, setup{}); err != nil {
		return nil, err
	}
	first, err := simulate(ctx, far, 0, new(atomic.Int64)) // only to know when the switch is there
	if err == nil {
		first.close()
	}
	return converge(ctx, mls, far, n)
}

func converge(ctx context.Context, mls, far *host, n int) (measured, error) {
	cpu0, err := mls.cpu()
	if err != nil {
		return nil, err
	}
	var messages atomic.Int64
	nodes, errs := make([]*simulated, n), make([]error, n)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if nodes[i], errs[i] = simulate(ctx, far, i, &messages); errs[i] == nil {
				errs[i] = nodes[i].tell(true)
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, s := range nodes {
			if s != nil {
				s.close()
			}
		}
	}()
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%w;%s", err, mls.said())
		}
	}
	end, err := allHear(ctx, nodes, n-1)
	if err != nil {
		return nil, fmt.Errorf("%w;%s", err, mls.said())
	}
	sleep(ctx, time.Second)
	cpu1, err := mls.cpu()
	if err != nil {
		return nil, err
	}
	peak, err := mls.memory("VmHWM")
	if err != nil {
		return nil, err
	}
	sent := float64(messages.Load())
	changed := time.Now()
	if err := nodes[0].tell(false); err != nil {
		return nil, err
	}
	after, err := allHear(ctx, nodes[1:], n-2)
	return measured{
		"time": {millis(end.Sub(start))}, "cpu": {millis(cpu1 - cpu0)}, "memory": {peak}, "messages": {sent},
		"change": {millis(after.Sub(changed))},
	}, err
}

// allHear waits until every node knows so many prefixes.
func allHear(ctx context.Context, nodes []*simulated, want int) (time.Time, error) {
	for {
		behind, now := 0, time.Now()
		for _, s := range nodes {
			if s.knows() != want {
				behind++
			}
		}
		if behind == 0 {
			return now, nil
		}
		if ctx.Err() != nil {
			return now, fmt.Errorf("%d of %d nodes do not know %d prefixes, the first knows %d: %w", behind, len(nodes), want, nodes[0].knows(), ctx.Err())
		}
		sleep(ctx, time.Millisecond)
	}
}
