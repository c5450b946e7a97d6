// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/task"
)

// TestATakenMetricsPortCostsNothing: nobody's routes hang on metrics.
func TestATakenMetricsPortCostsNothing(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.startNode(t, l.n3)
	l.n1.sh(t, "ip link set lo up")
	var taken net.Listener
	nstest.Do(t, l.n1.Handle, func() (err error) { taken, err = net.Listen("tcp", "127.0.0.1:9479"); return err })
	l.startNode(t, l.n1, "--metrics=127.0.0.1:9479")
	within(t, promised, "routes", func() bool { return l.mls.has(t, "10.10.10.0/24") && l.n1.has(t, "10.10.30.0/24") })
	if !strings.Contains(l.n1.output(), "cannot serve metrics over TCP") {
		t.Errorf("does not say so:\n%s", l.n1.output())
	}
	_ = taken.Close()
	within(t, promised, "metrics, once the port is free", func() bool {
		return strings.Contains(l.n1.sh(t, "ss -Hltn sport = :9479"), ":9479")
	})
}

// TestAFailureIsNoStop: what peers and kernel hold is the next process's, whichever part fails.
func TestAFailureIsNoStop(t *testing.T) {
	d := &wiring{state: &state{}}
	if err := d.together(t.Context(), part("ends", nil), part("fails", os.ErrClosed)); err == nil || !d.handedOver.Load() {
		t.Errorf("%v, handed over %v: peers and kernel lose what the next process needs", err, d.handedOver.Load())
	}
	d = &wiring{state: &state{}}
	d.leaving.Store(true)
	if err := d.together(t.Context(), part("fails", os.ErrClosed)); err == nil || d.handedOver.Load() {
		t.Errorf("%v, handed over %v: a stop leaves routes that nobody tends", err, d.handedOver.Load())
	}
}

// TestAStopBeforeTheNetworkIsThere ends a process that waits for its own address: routes of an earlier one go with it.
func TestAStopBeforeTheNetworkIsThere(t *testing.T) {
	n := newHost(t, "kubminion1")
	for _, end := range []struct {
		with syscall.Signal
		stay bool
	}{{syscall.SIGUSR2, true}, {syscall.SIGTERM, false}} {
		n.sh(t, "ip route replace unreachable 10.10.30.0/24 metric 2147483647 proto 103")
		n.routed(t, "--peer=10.20.30.1", "--pod-subnet=10.10.10.0/24")
		within(t, promised, "waits", func() bool { return n.status(t).Waiting != "" })
		n.signal(t, end.with)
		if n.has(t, "unreachable 10.10.30.0/24") != end.stay {
			t.Errorf("%v: the earlier process's route is there: %v\n%s", end.with, !end.stay, n.output())
		}
	}
}

// TestSignalsCountFromTheFirstMoment sends them as soon as there is anything of the process: systemd may, once it is ready.
func TestSignalsCountFromTheFirstMoment(t *testing.T) {
	n := newHost(t, "kubminion1")
	for range 20 {
		n.routed(t, "--peer=10.20.30.1", "--pod-subnet=10.10.10.0/24")
		within(t, promised, "the socket", func() bool { _, err := os.Stat(n.dir + "/routed.sock"); return err == nil })
		_ = n.cmd.Process.Signal(syscall.SIGHUP)
		n.signal(t, syscall.SIGUSR2)
		if s := n.cmd.ProcessState.String(); s != "exit status 0" {
			t.Fatalf("ended with %s\n%s", s, n.output())
		}
	}
}

func part(name string, err error) task.Task {
	return task.Task{Name: name, Run: func(context.Context) error { return err }}
}
