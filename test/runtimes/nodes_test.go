// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// Four nodes, each with its own containerd, routed and portald, with our switch and with FRR. Then one is rebooted.
func TestFourNodes(t *testing.T) {
	for _, mls := range []lab.Kind{lab.Embedded, lab.FRR} {
		t.Run(string(mls), func(t *testing.T) { fourNodes(t, mls) })
	}
}

func fourNodes(t *testing.T, mls lab.Kind) {
	l, nodes := upAt(t, mls, "kubminion1", "kubminion2", "kubminion3", "kubminion4")
	pods := make([]*sandbox, len(nodes))
	for i, n := range nodes {
		pods[i] = n.webPod(t, "web-"+n.Name)
	}
	publish(t, l, pods...)
	reachEachOther(t, l, pods)

	lost := nodes[1]
	before := pods[1]
	must(t, before.inside.Net.Close())
	lost.reboot(t)
	if leases, err := lost.leases(); err != nil || len(leases) > 0 {
		t.Errorf("leases outlive the reboot: %v %v", leases, err)
	}
	publish(t, l, pods[0], pods[2], pods[3])
	lost.start(t)
	if known := lost.removeAll(t); known != 1 {
		t.Errorf("containerd remembers %d sandboxes, want the one from before", known)
	}
	lost.mustBeClean(t)
	within(t, patience, "routes are back", l.Converged)

	pods[1] = lost.webPod(t, "after")
	if pods[1].addr != before.addr {
		t.Errorf("after the reboot the first pod got %s, want %s again", pods[1].addr, before.addr)
	}
	publish(t, l, pods...)
	reachEachOther(t, l, pods)
	for i, s := range pods {
		s.end(t)
		nodes[i].mustBeClean(t)
	}
}

// webPod is a pod with two containers: web80, which is published as hostPort, and web8080, which stands behind the
// service webfrontend.
func (n *node) webPod(t *testing.T, name string) *sandbox {
	t.Helper()
	s := n.run(t, name, tcp80)
	s.serve(t, "web80", 80, 0)
	s.serve(t, "web8080", 8080, 0)
	return s
}

// publish makes these pods the endpoints of webfrontend on all nodes.
func publish(t *testing.T, l *lab.Lab, pods ...*sandbox) {
	t.Helper()
	web := l.Services["webfrontend"]
	web.Endpoints = nil
	for _, s := range pods {
		web.Endpoints = append(web.Endpoints, topology.Endpoint{Addr: s.addr, Node: s.node.Name})
	}
	must(t, l.PublishService(web))
}

// reachEachOther wants every pod to reach every other, and all of them behind the service; every hostPort to answer
// outside. Servers see the pod's own address.
func reachEachOther(t *testing.T, l *lab.Lab, pods []*sandbox) {
	t.Helper()
	web := l.Services["webfrontend"]
	vip := on(web.VIP, web.Port)
	for _, from := range pods {
		for _, to := range pods {
			if from != to {
				must(t, seen(from, on(to.addr, 8080), to))
			}
		}
		for _, to := range pods {
			within(t, 20*time.Second, to.config.Metadata.Name+" answers behind "+vip, func() error { return seen(from, vip, to) })
		}
		must(t, answers(l.Hosts["outside"].Place, on(from.node.Spec.Addr.Addr(), hostPort), "web80"))
	}
}

// seen wants the pod to be seen by the other one as itself; a pod that is balanced to itself is seen as its node.
func seen(from *sandbox, addr string, to *sandbox) error {
	a, err := from.inside.Ask(addr)
	if err != nil {
		return err
	}
	want := []netip.Addr{from.addr}
	if from == to {
		want = append(want, from.node.Spec.Pods.Addr().Next())
	}
	if a.Pod != to.config.Metadata.Name {
		return fmt.Errorf("%s answers, want %s", a.Pod, to.config.Metadata.Name)
	}
	for _, w := range want {
		if a.Client.Addr() == w {
			return nil
		}
	}
	return fmt.Errorf("%s saw %s, want %v", a.Pod, a.Client, want)
}

// reboot ends all programs of the node and gives it an empty /run. The node's network namespace is the lab's and stays,
// so what the kernel would have lost with it goes by hand: the bridge and the rules. Routes are for routed to sweep.
func (n *node) reboot(t *testing.T) {
	t.Helper()
	must(t, n.Kill())
	n.Routed.Kill()
	n.Portald.Kill()
	steps := []string{
		"for ns in /run/netns/*; do [ ! -e $ns ] || umount $ns; done",
		"mkdir /tmp/keep.$$", "mount --rbind " + lab.Dir + " /tmp/keep.$$", "umount -R -l /run", "mount -t tmpfs run /run",
		"mkdir -p /run/netns /run/lock " + lab.Dir, "mount --rbind /tmp/keep.$$ " + lab.Dir, "umount -R -l /tmp/keep.$$", "rmdir /tmp/keep.$$",
		"ip link del docker0", "nft flush ruleset",
	}
	_, err := n.Run("sh", "-c", strings.Join(steps, " && "))
	must(t, err)
	within(t, 10*time.Second, "veths die with their namespaces", func() error {
		out, err := n.Run("sh", "-c", "ip -o link show type veth | grep -v "+lab.Uplink+"; true")
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
	must(t, n.StartRouted())
	must(t, n.StartPortald())
}
