// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestANewPodIsBoundWhateverOthersDid: an ADD that says success has bound its pod, and what it mends serves all.
func TestANewPodIsBoundWhateverOthersDid(t *testing.T) {
	l := newLab(t, subnet4+`,"sourceCheck":true`)
	a, b := l.pod("a"), l.pod("b")
	l.add(a)
	nstest.Run(t, l.node, "nft", "flush", "chain", "bridge", "l3edge_pods", "prerouting")
	l.add(b)
	l.must("CHECK", a)
	l.must("CHECK", b)
	nstest.Run(t, l.node, "nft", "delete", "element", "bridge", "l3edge_pods", "strict", `{ "`+attach.PortName("a", "eth0")+`" }`)
	l.refused("CHECK", a, 100, "table bridge l3edge_pods has been changed: set strict lacks "+attach.PortName("a", "eth0"))
}

// TestAnInterruptedAddLeavesNoBinding: the ADD that completes it may be asked for another address, or bind when the first
// one did not.
func TestAnInterruptedAddLeavesNoBinding(t *testing.T) {
	l := newLab(t, subnet4+`,"sourceCheck":true`)
	p := l.pod("a")
	p.args = "IP=10.10.10.9"
	l.add(p)
	nstest.Run(t, l.node, "ip", "link", "set", attach.PortName("a", "eth0"), "down") // as an ADD leaves it that was killed before its last step
	p.args, p.result = "IP=10.10.10.10", nil
	l.add(p)
	l.must("CHECK", p)
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, "10.10.10.9 ") || strings.Contains(out, "0a:58:0a:0a:0a:09") || !strings.Contains(out, "10.10.10.10") {
		t.Errorf("bound to what it had:\n%s", out)
	}
	l.must("DEL", p)

	l.keys = subnet4
	p = l.pod("b")
	l.add(p)
	nstest.Run(t, l.node, "ip", "link", "set", attach.PortName("b", "eth0"), "down")
	l.keys, p.result = subnet4+`,"sourceCheck":true`, nil
	l.add(p)
	l.keys = subnet4 // the configuration changes once more, so that the lease alone tells of the binding
	l.must("DEL", p)
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, "elements") {
		t.Errorf("after DEL:\n%s", out)
	}
}

// TestTheBindingIsUndone runs the step by itself: hardly anything behind it can fail.
func TestTheBindingIsUndone(t *testing.T) {
	l := newLab(t, "")
	j := &job{call: &cni.Call{}, lease: nil}
	j.want.Port = attach.Port{Name: "veth1", Guard: attach.Guard{MAC: attach.MAC{2, 0, 0, 0, 0, 1}}}
	nstest.Do(t, l.node, func() error {
		for _, s := range j.steps() {
			if s.Name != "bind port" {
				continue
			}
			g, err := guard.Dial()
			if err != nil {
				return err
			}
			defer g.Close()
			if err := g.Add("veth1", j.want.Port.Guard); err != nil {
				return err
			}
			if err := s.Undo(); err != nil {
				return err
			}
			if have, err := g.Get("veth1"); err != nil || !have.Equal(attach.Guard{}) {
				return fmt.Errorf("veth1 is bound to %v, %w", have, err)
			}
			return nil
		}
		return fmt.Errorf("no such step")
	})
}

// TestAFailedAddLeavesNothing: the pods' DNS settings cannot be read.
func TestAFailedAddLeavesNothing(t *testing.T) {
	l := newLab(t, `"sourceCheck":true,"bridge":"docker0","subnet":"10.10.10.0/24","ipam":{"resolvConf":"/nonexistent/resolv.conf","dataDir":"LEASES"}`)
	l.keys = strings.ReplaceAll(l.keys, "LEASES", l.leases)
	l.refused("ADD", l.pod("a"), 7, "ipam.resolvConf: ")
	if out := nstest.Sh(t, l.node, "nft list ruleset; ip -br link show type bridge"); l.left() != "" || strings.TrimSpace(out) != "" {
		t.Errorf("left: %s\n%s", l.left(), out)
	}
}
