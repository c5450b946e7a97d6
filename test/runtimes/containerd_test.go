// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/lab"
)

const hostPort = 8180

func on(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// A pod with two containers lives through a container's end, and on its end leaves nothing, on two nodes at once.
func TestPods(t *testing.T) {
	l, nodes := up(t, "kubminion1", "kubminion3")
	outside := l.Hosts["outside"].Place
	n := nodes[0]
	s := n.run(t, "webpod", hostPort)
	web80 := s.serve(t, "web80", 80, 0)
	s.serve(t, "web8080", 8080, 0)
	published := on(n.Spec.Addr.Addr(), hostPort)

	t.Run("two containers share address and localhost", func(t *testing.T) {
		for port, container := range map[uint16]string{80: "web80", 8080: "web8080"} {
			must(t, answers(s.inside, fmt.Sprintf("127.0.0.1:%d", port), container))
			must(t, answers(outside, on(s.addr, port), container))
		}
	})
	t.Run("a hostPort answers from other hosts and the node", func(t *testing.T) {
		for _, from := range []string{"outside", "kubminion2", "kubminion3", "kubminion1"} {
			must(t, answers(l.Hosts[from].Place, published, "web80"))
		}
	})
	t.Run("a killed container comes back at the same address, and the other never notices", func(t *testing.T) {
		status, err := n.runtime.ContainerStatus(call(t), &cri.ContainerStatusRequest{ContainerId: web80, Verbose: true})
		must(t, err)
		must(t, syscall.Kill(pid(t, status.Info), syscall.SIGKILL))
		within(t, patience, "containerd notices", func() error {
			status, err := n.runtime.ContainerStatus(call(t), &cri.ContainerStatusRequest{ContainerId: web80})
			if err == nil && status.Status.State != cri.ContainerState_CONTAINER_EXITED {
				err = fmt.Errorf("state %s", status.Status.State)
			}
			return err
		})
		if err := outside.Reaches(on(s.addr, 80)); err == nil {
			t.Error("the killed container still answers")
		}
		must(t, answers(outside, on(s.addr, 8080), "web8080"))
		s.serve(t, "web80", 80, 1)
		must(t, answers(outside, on(s.addr, 80), "web80"))
		must(t, answers(outside, published, "web80"))
	})
	t.Run("pods of two nodes see each other's own address", func(t *testing.T) {
		far := nodes[1].run(t, "far", 0)
		far.serve(t, "far", 8080, 0)
		for _, way := range []struct{ from, to *sandbox }{{s, far}, {far, s}} {
			a, err := way.from.inside.Ask(on(way.to.addr, 8080))
			must(t, err)
			if a.Client.Addr() != way.from.addr || a.Pod != way.to.config.Metadata.Name {
				t.Errorf("%s saw %s, want %s at %s", a.Pod, a.Client, way.from.addr, way.to.config.Metadata.Name)
			}
		}
		nodes[1].stop(t, far.id)
		nodes[1].remove(t, far.id)
		within(t, 10*time.Second, "the far node is clean", func() error { return nodes[1].clean(hostPort) })
	})
	t.Run("a pod outlives containerd", func(t *testing.T) {
		n.daemon.Kill()
		must(t, answers(outside, published, "web80"))
		n.start(t)
		must(t, answers(outside, published, "web80"))
	})
	t.Run("stopped twice and removed it leaves nothing", func(t *testing.T) {
		if n.clean(hostPort) == nil {
			t.Fatal("a node with a pod looks clean: the check is blind")
		}
		n.stop(t, s.id)
		n.stop(t, s.id)
		n.remove(t, s.id)
		within(t, 10*time.Second, "the node is clean", func() error { return n.clean(hostPort) })
		if outside.Reaches(published) == nil {
			t.Error("the hostPort still answers")
		}
	})
}

// containerd is killed while the plugins run. Started again it knows the sandbox, and the kubelet's stop and remove clear
// all that is ours, without a GC.
func TestContainerdKilledInRunPodSandbox(t *testing.T) {
	_, nodes := up(t, "kubminion1")
	n := nodes[0]
	for _, when := range []struct{ name, file string }{
		{"when the namespace is there", "/run/netns/cni-*"},
		{"when the address is claimed", mark.LeaseDir + "/*/10.10.*"},
	} {
		t.Run(when.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			done := make(chan error, 1)
			go func() {
				_, err := n.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: n.sandboxConfig("victim", hostPort)})
				done <- err
			}()
			n.await(t, when.file)
			n.daemon.Kill()
			t.Logf("RunPodSandbox: %v", <-done)
			n.start(t)
			if known := n.removeAll(t); known != 1 {
				t.Errorf("containerd remembers %d sandboxes, want the one it was making", known)
			}
			n.dropBareFiles(t)
			within(t, 10*time.Second, "the node is clean", func() error { return n.clean(hostPort) })
			s := n.run(t, "next", hostPort)
			n.stop(t, s.id)
			n.remove(t, s.id)
			within(t, 10*time.Second, "the node is clean after the next pod", func() error { return n.clean(hostPort) })
		})
	}
}

// await returns as soon as a file of that pattern is on the node: it looks more often than within does, for what it
// waits for is a moment.
func (n *node) await(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		if found, _ := filepath.Glob(n.file(pattern)); len(found) > 0 { // the pattern is well-formed
			return
		}
	}
	t.Fatalf("%s never shows up on %s", pattern, n.Name)
}

// dropBareFiles removes the files on which containerd was about to pin a namespace when it was killed: it forgets them.
func (n *node) dropBareFiles(t *testing.T) {
	t.Helper()
	_, err := n.Run("sh", "-c", "for ns in /run/netns/cni-*; do [ ! -e $ns ] || mountpoint -q $ns || rm $ns; done")
	must(t, err)
}

// A reboot takes /run and all namespaces; containerd's root stays, and remembers pods that are no more.
func TestReboot(t *testing.T) {
	l, nodes := up(t, "kubminion1")
	n := nodes[0]
	before := n.run(t, "before", hostPort)
	before.serve(t, "web80", 80, 0)
	must(t, before.inside.Net.Close())
	n.reboot(t)
	if leases, err := n.leases(); err != nil || len(leases) > 0 {
		t.Errorf("leases outlive the reboot: %v %v", leases, err)
	}
	n.start(t)
	if known := n.removeAll(t); known != 1 {
		t.Errorf("containerd remembers %d sandboxes, want the one from before", known)
	}
	within(t, 10*time.Second, "the node is clean", func() error { return n.clean(hostPort) })
	within(t, patience, "routes are back", l.Converged)

	after := n.run(t, "after", hostPort)
	after.serve(t, "web80", 80, 0)
	if after.addr != before.addr {
		t.Errorf("after the reboot the first pod got %s, want %s again", after.addr, before.addr)
	}
	must(t, answers(l.Hosts["outside"].Place, on(n.Spec.Addr.Addr(), hostPort), "web80"))
	n.stop(t, after.id)
	n.remove(t, after.id)
	within(t, 10*time.Second, "the node is clean again", func() error { return n.clean(hostPort) })
}

// reboot ends all programs of the node and gives it an empty /run. The node's network namespace is the lab's and stays,
// so what the kernel would have lost with it goes by hand: the bridge and the rules. Routes are for routed to sweep.
func (n *node) reboot(t *testing.T) {
	t.Helper()
	n.kill()
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
