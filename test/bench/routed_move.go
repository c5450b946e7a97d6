// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// move measures with packets what losing one of two next hops costs: how long after it was lost the last packet still
// goes there, with the kernel's default for nexthop_compat_mode and without it.
func (b *routedBench) move(ctx context.Context) {
	const n = 100_000
	for _, compat := range []bool{true, false} {
		t := take(ctx, b.samples(12, 3), []contender{{name: "routed"}}, func(context.Context, contender) (measured, error) {
			f, err := newFork()
			defer f.close()
			if err != nil {
				return nil, err
			}
			return f.lose(n, compat)
		})
		name := fmt.Sprintf("routed/next-hop-lost/%d-routes/packets", n)
		if !compat {
			name += "-without-compat-mode"
		}
		for _, m := range []struct {
			what string
			unit Unit
			most *float64
		}{{"moved", Millis, most(5)}, {"lost", Times, most(0)}} {
			bar := Bar{Name: name + "/" + m.what, Unit: m.unit, Most: m.most}
			if err := t["routed"].err; err != nil {
				bar.Reason = strings.Join(strings.Fields(err.Error()), " ")
			}
			b.r.put(bar, t["routed"].values[m.what], nil)
		}
	}
}

// fork is a node between two switches, each on a link of its own. Both know every destination and note what reaches them.
type fork struct {
	*wires
	other *host
	hops  [2]route.NextHop
	ears  [2]*net.UDPConn
}

const (
	forkPort     = 9
	destinations = 64 // destinations, each its own flow
)

func newFork() (*fork, error) {
	w, err := newWires()
	f := &fork{wires: w}
	if err != nil {
		return f, err
	}
	if f.other, err = newHost("mls2"); err != nil {
		return f, err
	}
	gw2 := netip.MustParseAddr("10.20.40.1")
	const dst = "ip route add local 16.0.0.0/4 dev lo; sysctl -qw net.ipv4.conf.all.rp_filter=0"
	err = errors.Join(
		w.node.sh("ip link add eth1 type veth peer name p1 netns "+f.other.ns.Path()+"; ip addr add 10.20.40.11/24 dev eth1; ip link set eth1 up; sysctl -qw net.ipv4.fib_multipath_hash_policy=0"),
		f.other.sh("ip addr add "+gw2.String()+"/24 dev p1; ip link set p1 up; "+dst), w.far.sh(dst))
	if err != nil {
		return f, err
	}
	topo, err := w.table.Topology()
	if err != nil {
		return f, err
	}
	for i, gw := range []netip.Addr{switchAddr, gw2} {
		var ok bool
		if f.hops[i], ok = topo.Neighbour(gw); !ok {
			return f, fmt.Errorf("%s is on no link", gw)
		}
		err := []*host{w.far, f.other}[i].ns.Do(func() (err error) {
			f.ears[i], err = net.ListenUDP("udp4", &net.UDPAddr{Port: forkPort})
			return err
		})
		if err != nil {
			return f, err
		}
		if err := f.ears[i].SetReadBuffer(8 << 20); err != nil {
			return f, err
		}
	}
	return f, w.node.ns.Do(func() error { // neighbours are known before it begins
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // nothing is buffered
		for _, gw := range []netip.Addr{switchAddr, gw2} {
			_, err = c.WriteToUDPAddrPort(nil, netip.AddrPortFrom(gw, forkPort+1))
			if err != nil {
				return err
			}
		}
		time.Sleep(50 * time.Millisecond)
		return nil
	})
}

func (f *fork) close() {
	for _, e := range f.ears {
		if e != nil {
			_ = e.Close()
		}
	}
	if f.other != nil {
		f.other.close()
	}
	f.wires.close()
}

// heard is what reached one switch: how many packets, and when the last one was sent.
type heard struct {
	n    int
	last time.Duration
}

// listen notes packets until the socket has been silent for a while.
func listen(c *net.UDPConn) (h heard) {
	buf := make([]byte, 64)
	for {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(buf)
		if err != nil || n < 8 {
			return h
		}
		h.last = max(h.last, time.Duration(binary.BigEndian.Uint64(buf)))
		h.n++
	}
}

// lose sends packets all the time, takes one next hop away from n routes, and looks where the packets went.
func (f *fork) lose(n int, compat bool) (measured, error) {
	if !compat {
		if err := f.node.sh("sysctl -qw net.ipv4.nexthop_compat_mode=0"); err != nil {
			return nil, err
		}
	}
	want := tableOf(n, route.NewEntry(f.hops[0], f.hops[1]))
	want[netip.MustParsePrefix("10.10.99.0/24")] = route.NewEntry(f.hops[1])
	if err := f.apply(want, nil); err != nil {
		return nil, err
	}
	began := time.Now()
	since := func() time.Duration { return time.Since(began) }
	var got [2]heard
	var listening sync.WaitGroup
	for i := range got {
		listening.Go(func() { got[i] = listen(f.ears[i]) })
	}
	stop, sent := make(chan struct{}), make(chan error, 1)
	count := 0
	go func() { sent <- f.send(stop, since, &count) }()
	time.Sleep(100 * time.Millisecond)
	lost := since()
	moved, err := f.table.Lose(f.hops[0])
	time.Sleep(300 * time.Millisecond)
	close(stop)
	err = errors.Join(err, <-sent)
	listening.Wait()
	switch {
	case err != nil:
		return nil, err
	case len(moved) != 1:
		return nil, fmt.Errorf("moved %v", moved)
	case got[0].n == 0 || got[1].n == 0:
		return nil, fmt.Errorf("packets took one way only: %+v", got)
	}
	want.Move(moved)
	return measured{
		"moved": {millis(max(got[0].last-lost, 0))}, "lost": {float64(count - got[0].n - got[1].n)},
	}, f.apply(nil, want)
}

// send sends a packet every 50 microseconds, to one destination after the other, each with the time when it was sent.
func (f *fork) send(stop chan struct{}, since func() time.Duration, count *int) error {
	var c *net.UDPConn
	err := f.node.ns.Do(func() (err error) { c, err = net.ListenUDP("udp4", nil); return err })
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is buffered
	buf := make([]byte, 8)
	for next := since(); ; next += 50 * time.Microsecond {
		select {
		case <-stop:
			return nil
		default:
		}
		for since() < next { // a timer is not as fine
		}
		to := netip.AddrPortFrom(prefixNumber(*count*1009%destinations*1000).Addr().Next(), forkPort)
		binary.BigEndian.PutUint64(buf, uint64(since()))
		if _, err := c.WriteToUDPAddrPort(buf, to); err != nil {
			return fmt.Errorf("send to %s: %w", to, err)
		}
		*count++
	}
}
