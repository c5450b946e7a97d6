// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestDrainWaitsAndLasts(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/birdc"); err != nil {
		t.Fatal("bird is not installed: test/need.sh test")
	}
	l := newLab(t)
	startBird(t, l.mls)
	var text atomic.Value
	text.Store(`{"synced":true,"portalNets":[],"vips":[{"vip":"203.0.113.7","ready":2}]}`)
	socket := l.n1.dir + "/portald.sock"
	defer fakePortald(t, socket, &text)()
	args := []string{"--peer=10.20.30.1", "--pod-subnet=10.10.10.0/24", "--announce-vips", "--portald-socket=" + socket}
	l.n1.routed(t, args...)
	within(t, promised, "the address", func() bool { return l.mls.has(t, "203.0.113.7 via 10.20.30.62") })
	const flow = "-p tcp -s 172.16.0.100 -d 203.0.113.7 --sport 40000 --dport 80"
	nstest.Sh(t, l.n1.Handle, "conntrack -I "+flow+" --state ESTABLISHED -t 300")
	tell := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(append(args, "--socket="+l.n1.dir+"/routed.sock"), &out, &out)
		return out.String(), err
	}
	if said, err := tell("drain", "--for=0s", "--wait=1s"); err != nil || said != "drained: 1 connections were left after 1s\n" {
		t.Errorf("drain that meets its deadline: %q %v", said, err)
	}
	if _, err := tell("undrain"); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, "back", func() bool { return l.mls.has(t, "203.0.113.7") })
	type answer struct {
		said string
		err  error
	}
	answers := make(chan answer, 1)
	go func() { said, err := tell("drain", "--for=0s", "--wait"); answers <- answer{said, err} }()
	within(t, time.Second, "GRACEFUL_SHUTDOWN", func() bool {
		return strings.Contains(nstest.Run(t, l.mls.Handle, "/usr/sbin/birdc", "-s", l.mls.dir+"/bird.ctl", "show", "route", "all", "203.0.113.7/32"), "(65535,0)")
	})
	if !l.mls.has(t, "203.0.113.7") || len(answers) > 0 {
		t.Error("withdrawn while a connection lasts")
	}
	nstest.Sh(t, l.n1.Handle, "conntrack -D "+flow)
	if a := <-answers; a.err != nil || a.said != "drained\n" {
		t.Errorf("drain whose connections ebbed: %q %v", a.said, a.err)
	}
	within(t, time.Second, "withdrawn", func() bool { return !l.mls.has(t, "203.0.113.7") })

	l.n1.signal(t, syscall.SIGTERM)
	l.n1.routed(t, args...)
	within(t, promised, "the pods are back", func() bool { return l.mls.has(t, "10.10.10.0/24") })
	within(t, promised, "the address is held back", func() bool {
		held := l.n1.status(t).Held
		return len(held) == 1 && held[0].Lacks == "drained"
	})
	if l.mls.has(t, "203.0.113.7") {
		t.Error("a restart undid the drain")
	}
}
