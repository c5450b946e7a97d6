// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// birdWithBFD is a switch; %s is how it takes BFD's word.
const birdWithBFD = `router id 10.20.30.1;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol bfd { interface "*" { min rx interval 200 ms; min tx interval 200 ms; multiplier 3; }; }
template bgp nodes { local as 64512; graceful restart on; bfd %s; error wait time 1, 2; ipv4 { import all; export where source = RTS_BGP; }; }
protocol bgp a from nodes { neighbor range 10.20.30.0/24 external; }
protocol bgp b from nodes { neighbor range 192.168.10.0/24 external; }
`

// TestAHandOverIsNoFailureToBFD restarts a node's router, as systemd does, beside switches that watch it with BFD.
func TestAHandOverIsNoFailureToBFD(t *testing.T) {
	for _, r := range []struct {
		name  string
		start func(*testing.T, *host)
		up    func(*testing.T, *host) bool
	}{
		{"frr", func(t *testing.T, mls *host) {
			startFRR(t, mls, " neighbor NODES bfd\n neighbor NODES bfd profile p\n")
		}, func(t *testing.T, mls *host) bool {
			return strings.Contains(mls.vtysh(t, "bfdd", "show bfd peers"), "Status: up")
		}},
		{"bird", func(t *testing.T, mls *host) {
			runBird(t, mls, fmt.Sprintf(birdWithBFD, "graceful"))
		}, func(t *testing.T, mls *host) bool {
			return strings.Contains(mls.sh(t, "/usr/sbin/birdc -s "+mls.dir+"/bird.ctl show bfd sessions"), " Up ")
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			args := []string{"--peer=10.20.30.1,bfd=200ms", "--pod-subnet=10.10.10.0/24"}
			l.n1.routed(t, args...)
			l.startNode(t, l.n3)
			within(t, promised, "routes", func() bool { return l.mls.has(t, "10.10.10.0/24") && l.n1.has(t, "10.10.30.0/24") })
			both := func() bool {
				st := l.n1.status(t)
				return len(st.Sessions) == 1 && st.Sessions[0].Synced && st.Sessions[0].BFD == "up" && r.up(t, l.mls)
			}
			within(t, 10*time.Second, "BFD on both sides", both)
			in := newStream(t, "inwards", l.n3, "10.10.30.1", l.n1, "10.10.10.1")
			l.n1.signal(t, syscall.SIGUSR2)
			l.n1.routed(t, args...)
			within(t, 20*time.Second, "BFD on both sides again", both)
			if in.lost(t) > 0 {
				t.Error("packets lost")
			}
			if n := l.n1.status(t).Sessions[0].Losses; n > 0 {
				t.Errorf("the new process lost its session %d times", n)
			}
		})
	}
}
