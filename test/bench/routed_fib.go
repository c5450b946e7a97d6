// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib"
)

// fib measures the kernel's part alone: our own netlink beside iproute2's batch mode.
func (b *routedBench) fib(ctx context.Context) {
	const n = 100_000
	rounds := b.samples(12, 3)
	all := []contender{{name: "routed"}, {name: "iproute2"}}
	t := take(ctx, rounds, all, func(_ context.Context, c contender) (measured, error) {
		w, err := newWires()
		defer w.close()
		if err != nil {
			return nil, err
		}
		if c.name == "iproute2" {
			return w.batch(n)
		}
		return w.program(n)
	})
	t.put(b.r, Bar{Name: "routed/kernel/cpu-per-route", Unit: Micros, Want: 1, Most: most(2)}, "cpu", "iproute2")
	for _, quiet := range []bool{true, false} { // the traffic has moved long before: see move
		bar := Bar{Name: fmt.Sprintf("routed/next-hop-lost/%d-routes/kernel-answers", n), Unit: Millis}
		if !quiet { // it notifies whoever listens of each route first
			bar.Name += "-in-compat-mode"
		}
		t := take(ctx, rounds, all[:1], func(context.Context, contender) (measured, error) {
			w, err := newWires()
			defer w.close()
			if err != nil {
				return nil, err
			}
			return w.lose(n, quiet)
		})
		if err := t["routed"].err; err != nil {
			bar.Reason = strings.Join(strings.Fields(err.Error()), " ")
		}
		b.r.put(bar, t["routed"].values["time"], nil)
	}
}

// wires is a node with two switches on its segment, and its table.
type wires struct {
	node, far *host
	table     *fib.Table
	link      int
}

func newWires() (w *wires, err error) {
	w = &wires{}
	if w.node, err = newHost("node1"); err != nil {
		return w, err
	}
	if w.far, err = newHost("mls"); err != nil {
		return w, err
	}
	if err := veth(w.node, "eth0", node1Addr.String()+"/24", w.far, "p1", switchAddr.String()+"/24"); err != nil {
		return w, err
	}
	if err := w.node.ns.Do(func() (err error) { w.table, err = fib.Open(); return err }); err != nil {
		return w, err
	}
	topo, err := w.table.Topology()
	hop, ok := topo.Neighbour(switchAddr)
	if err == nil && !ok {
		err = errors.New("the switch is on no link")
	}
	w.link = hop.Link
	return w, err
}

func (w *wires) close() {
	if w.table != nil {
		_ = w.table.Close()
	}
	for _, h := range []*host{w.node, w.far} {
		if h != nil {
			h.close()
		}
	}
}

// hop is the n-th of the switches.
func (w *wires) hop(n int) route.NextHop {
	return route.NextHop{Gateway: nextHops()[n], Link: w.link}
}

// table is n prefixes by one entry.
func tableOf(n int, e route.Entry) route.FIB {
	out := make(route.FIB, n)
	for i := range n {
		out[prefixNumber(i)] = e
	}
	return out
}

func prefixNumber(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i), 0}), 24)
}

func (w *wires) apply(desired, actual route.FIB) error {
	failures, err := w.table.Apply(route.Diff(desired, actual))
	if err == nil && len(failures) > 0 {
		err = failures[0]
	}
	return err
}

// program measures the CPU time that n routes cost, messages and kernel.
func (w *wires) program(n int) (measured, error) {
	want := tableOf(n, route.NewEntry(w.hop(0)))
	plan := route.Diff(want, nil)
	before, err := cpuOf(syscall.RUSAGE_SELF)
	if err != nil {
		return nil, err
	}
	failures, err := w.table.Apply(plan)
	if err != nil || len(failures) > 0 {
		return nil, fmt.Errorf("apply: %v %w", failures, err)
	}
	after, err := cpuOf(syscall.RUSAGE_SELF)
	if err != nil {
		return nil, err
	}
	return measured{"cpu": {1000 * millis(after-before) / float64(n)}}, w.apply(nil, want)
}

// batch has iproute2 do the same.
func (w *wires) batch(n int) (measured, error) {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "route add %s via %s dev eth0 proto static\n", prefixNumber(i), nextHops()[0])
	}
	path, err := w.node.write("routes", text.String())
	if err != nil {
		return nil, err
	}
	defer os.Remove(path) //nolint:errcheck // the folder goes anyway
	cmd := exec.Command("ip", "-batch", path)
	if err := w.node.ns.Do(cmd.Run); err != nil {
		return nil, err
	}
	spent := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return measured{"cpu": {1000 * millis(spent) / float64(n)}}, w.node.sh("ip route flush proto static")
}

// lose measures how long it takes to move n routes from two next hops to the one that is left. The set with one is
// there already, as it is where not all routes have two ways.
func (w *wires) lose(n int, quiet bool) (measured, error) {
	if quiet {
		if err := w.node.sh("sysctl -qw net.ipv4.nexthop_compat_mode=0"); err != nil {
			return nil, err
		}
	}
	want := tableOf(n, route.NewEntry(w.hop(0), w.hop(1)))
	want[netip.MustParsePrefix("10.10.99.0/24")] = route.NewEntry(w.hop(1))
	if err := w.apply(want, nil); err != nil {
		return nil, err
	}
	start := time.Now()
	moved, err := w.table.Lose(w.hop(0))
	took := time.Since(start)
	if err != nil || len(moved) != 1 {
		return nil, fmt.Errorf("moved %v: %w", moved, err)
	}
	want.Move(moved)
	return measured{"time": {millis(took)}}, w.apply(nil, want)
}

func cpuOf(who int) (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
