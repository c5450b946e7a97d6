// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"

	"github.com/l3edge/l3edge/pkg/lab/cri"
)

// restarts ends what runs the pods of a node, and starts it again.
func restarts(t *testing.T, c *cluster) {
	n := c.nodes[1]
	c.steady(t, "a restart of the kubelet", func() {
		must(t, n.kubelet.Stop())
		n.startKubelet(t)
		n.ready(t)
	})
	c.steady(t, "a crash of containerd", func() {
		n.Daemon.Kill()
		must(t, n.Runtime.Start())
		n.ready(t)
	})
	c.apply(t, deployment("after", 2, ""))
	c.kubectl(t, "rollout", "status", "deployment/after", "--timeout=5m")
	c.kubectl(t, "delete", "deployment/after")
}

// running are the processes of the daemon of that name on the node.
func (n *node) running(name string) (pids []int) {
	for _, pid := range n.Processes() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if exe, _, _ := strings.Cut(string(b), "\x00"); err == nil && filepath.Base(exe) == name {
			pids = append(pids, pid)
		}
	}
	return pids
}

// guests are the processes of the pod of that name on the node.
func (n *node) guests(pod string) (pids []int) {
	for _, pid := range n.running("guest") {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && strings.Contains(string(b), "POD="+pod+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// crashes kills our daemons on both nodes while there is no API server: the kubelet starts them again, and what they knew
// stays in force. A pod that dies meanwhile is noticed afterwards.
func crashes(t *testing.T, c *cluster) {
	c.steady(t, "crashes without an API server", func() {
		c.first.kill()
		for _, name := range []string{"routed", "portald"} {
			for _, n := range c.nodes {
				was := n.running(name)
				if len(was) != 1 {
					t.Fatalf("%s on %s: processes %v, want one", name, n.Name, was)
				}
				must(t, syscall.Kill(was[0], syscall.SIGKILL))
				within(t, patience, name+" on "+n.Name+" is back", func() error {
					if now := n.running(name); len(now) != 1 || now[0] == was[0] {
						return fmt.Errorf("%v", now)
					}
					return nil
				})
			}
		}
		time.Sleep(12 * time.Second) // longer than any hold time: the outage itself
		c.first.restart(t)
	})
	for _, n := range c.nodes {
		n.ready(t)
	}
	c.installed(t)
	p := c.one(t, "one") // its process dies while nobody can say so
	c.first.kill()
	for _, n := range c.nodes {
		for _, pid := range n.guests(p.Name) {
			must(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	within(t, patience, "the kubelet starts it again, and its service answers", func() error { return answers(c.nodes[0].Host, "10.100.7.1", p.Name) })
	c.first.restart(t)
}

// drain empties a node of pods, and fills it again.
func drain(t *testing.T, c *cluster) {
	c.kubectl(t, "scale", "deployment/web", "--replicas=2")
	c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=5m")
	c.apply(t, "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web}\nspec: {minAvailable: 1, selector: {matchLabels: {app: web}}}\n")
	n := c.nodes[0]
	c.steady(t, "a drain", func() {
		c.kubectl(t, "patch", "deployment/web", "--type=json", `--patch=[{"op":"remove","path":"/spec/template/spec/topologySpreadConstraints"}]`)
		c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=5m")
		c.kubectl(t, "cordon", n.Name) // the scheduler is to know of it before the first pod has to go
		c.kubectl(t, "drain", n.Name, "--ignore-daemonsets", "--force", "--timeout=5m")
		c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=5m")
	})
	for _, p := range c.pods(t, "web") {
		if p.Spec.NodeName == n.Name {
			t.Errorf("%s is still there", p.Name)
		}
	}
	c.kubectl(t, "uncordon", n.Name)
}

// reboot cuts a node's power: its processes, its links and what lay on tmpfs are gone. (Its routes are routed's to sweep.) What comes up again is the host with
// its disk, containerd and the kubelet.
func reboot(t *testing.T, c *cluster) {
	n := c.nodes[1]
	n.kubelet.Kill()
	must(t, n.Kill())
	within(t, patience, "its control groups are gone", func() error { return cri.RemoveGroup(n.Group) })
	must(t, cri.MakeGroup(n.Group))
	_, err := n.Run("sh", "-c", `set -e
		for l in $(ip -o link show type veth | sed -n 's/^[0-9]*: \(veth[^@:]*\).*/\1/p'); do ip link del $l || true; done
		ip link del cni0
		nft flush ruleset
		awk '$5 ~ "^(/run/containerd/|/run/netns/cni-|/var/lib/kubelet/pods/)" { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l
		rm -rf /run/l3edge /run/containerd /run/netns/cni-*
		sysctl -qw net.ipv4.ip_forward=0`)
	must(t, err)
	must(t, n.Runtime.Start())
	n.startKubelet(t)
	n.ready(t)
	here := slices.DeleteFunc(c.pods(t, "web"), func(p core.Pod) bool { return p.Spec.NodeName != n.Name })
	if len(here) == 0 {
		t.Fatal("it has no pods")
	}
	for _, name := range []string{"routed", "portald"} {
		within(t, 3*patience, name+" runs again", func() error {
			if len(n.running(name)) == 0 {
				return fmt.Errorf("it does not")
			}
			return nil
		})
	}
	within(t, 3*patience, "its pods run again", func() error {
		for _, p := range here {
			if len(n.guests(p.Name)) == 0 {
				return fmt.Errorf("%s does not", p.Name)
			}
		}
		return nil
	})
	c.installed(t)
	c.kubectl(t, "wait", "--for=condition=Ready", "pod", "-l", "app=web", "--timeout=5m")
	for _, p := range c.pods(t, "web") {
		within(t, patience, p.Name+" answers across the switch", func() error { return answersAt(c.lab.Hosts["outside"], p.Status.PodIP+":8080", p.Name) })
	}
	within(t, patience, "its own services", func() error { _, err := n.Ask("10.100.87.105:80"); return err })
	within(t, patience, "as many leases as attachments", func() error { // other pods are still coming
		out, err := n.Run("sh", "-c", "find /run/l3edge/leases -type f -name '10.*' | wc -l; ip -o link show master cni0 | wc -l")
		if f := strings.Fields(out); err == nil && (len(f) != 2 || f[0] != f[1]) {
			err = errors.New(out)
		}
		return err
	})
}
