// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

const conflist = "/etc/cni/net.d/10-l3edge.conflist"

// held is a list in which an ADD can be held before, between and behind our plugins.
const held = `{"cniVersion": "1.0.0", "name": "l3edge", "plugins": [
  {"type": "hold", "place": "before"},
  {"type": "bridge-l3", "bridge": "docker0", "subnet": "10.10.10.0/24"},
  {"type": "hold", "place": "between"},
  {"type": "portal", "capabilities": {"portMappings": true}},
  {"type": "hold", "place": "behind"}
]}
`

// crashNode is a node whose list is held.
func crashNode(t *testing.T) *node {
	t.Helper()
	l, _ := up(t)
	must(t, l.Hosts["kubminion1"].WriteFile(conflist, held))
	n := newNode(t, l.Hosts["kubminion1"], saveImages(t))
	must(t, os.Mkdir(n.File("/run/hold"), 0o755))
	return n
}

// begin asks for a pod. What the channel gives is the answer.
func (n *node) begin(t *testing.T) <-chan error {
	ctx, done := call(t), make(chan error, 1)
	go func() {
		_, err := n.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: n.sandboxConfig("victim", tcp80)})
		done <- err
	}()
	return done
}

// recovers starts containerd again and does what the kubelet does with a pod that was not finished: stop it and remove it.
// Then nothing of ours is left, without a GC, and the next pod is well.
func (n *node) recovers(t *testing.T) {
	t.Helper()
	n.start(t)
	n.removeAll(t)
	n.dropForgotten(t)
	n.mustBeClean(t)
}

// containerd is killed in the middle of RunPodSandbox, at known places.
func TestContainerdKilledInRunPodSandbox(t *testing.T) {
	n := crashNode(t)
	for _, when := range []struct{ name, hold, file string }{
		{"the namespace is there", "", "/run/netns/cni-*"},
		{"before our plugins", "before", "/run/hold/before.reached"},
		{"the address is claimed", "", mark.LeaseDir + "/*/10.10.*"},
		{"between our plugins", "between", "/run/hold/between.reached"},
		{"behind our plugins", "behind", "/run/hold/behind.reached"},
		{"the result is in libcni's cache", "", "/var/lib/cni/results/l3edge-*"},
		{"the shim is there", "", "/run/containerd/s/*"},
		{"the pause container is there", "", "/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/init.pid"},
	} {
		t.Run(when.name, func(t *testing.T) {
			if when.hold != "" {
				must(t, os.WriteFile(n.File("/run/hold/"+when.hold), nil, 0o644))
			}
			done := n.begin(t)
			n.await(t, when.file)
			n.Daemon.Kill()
			if err := <-done; err == nil {
				t.Error("RunPodSandbox was over: the kill came too late to mean anything")
			}
			if when.hold != "" {
				must(t, os.Remove(n.File("/run/hold/"+when.hold+".reached")))
			}
			n.recovers(t)
		})
	}
	s := n.run(t, "next", tcp80)
	s.serve(t, "web80", 80, 0)
	s.end(t)
	n.mustBeClean(t)
}

// containerd is killed at any time of RunPodSandbox, every other time the running plugins with it.
func TestContainerdKilledAtAnyTime(t *testing.T) {
	n := crashNode(t)
	start := time.Now()
	n.run(t, "measure", tcp80).end(t)
	whole := time.Since(start)
	const points = 24
	for i := range points {
		at := whole * time.Duration(i) / points
		t.Run(at.Round(time.Millisecond).String(), func(t *testing.T) {
			done := n.begin(t)
			select {
			case <-time.After(at):
			case err := <-done:
				must(t, err)
			}
			n.Daemon.Kill()
			if i%2 == 1 {
				for _, pid := range n.plugins() {
					_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
				}
			}
			n.recovers(t)
		})
	}
}

// plugins are the running plugins of the node.
func (n *node) plugins() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", n.Pid))
	for _, proc := range procs {
		exe, _ := os.Readlink(proc + "/exe")
		mnt, _ := os.Readlink(proc + "/ns/mnt")
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil && mnt == own && filepath.Dir(exe) == "/opt/cni/bin" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A crash may leave libcni's file of a result cut off, as it writes it in place. The libcni in containerd 1.6 then cannot
// stop the pod: it never gets as far as to ask the plugins. docs/reference/runtimes.md says what helps, which is done here.
func TestCutOffResult(t *testing.T) {
	n := crashNode(t)
	s := n.run(t, "victim", tcp80)
	results, err := filepath.Glob(n.File("/var/lib/cni/results/l3edge-*"))
	if err != nil || len(results) != 1 {
		t.Fatalf("cached results: %v %v, want one", results, err)
	}
	must(t, os.Truncate(results[0], 10))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = n.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: s.id})
	if err == nil {
		t.Log("this containerd copes with a cut-off result")
	} else if !strings.Contains(err.Error(), "cached result") {
		t.Errorf("StopPodSandbox: %v, want an error about the cached result", err)
	} else {
		must(t, os.Remove(results[0]))
	}
	s.end(t)
	n.mustBeClean(t)
}

// await returns as soon as a file of that pattern is on the node: it looks more often than within does, for what it
// waits for is a moment.
func (n *node) await(t *testing.T, pattern string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
		if found, _ := filepath.Glob(n.File(pattern)); len(found) > 0 { // the pattern is well-formed
			return
		}
	}
	t.Fatalf("%s never shows up on %s", pattern, n.Name)
}

// dropForgotten removes what containerd had made, and not yet written down, when it was killed: it never comes back to
// that. It is a namespace that no plugin has seen, so nothing of ours may be inside, or a shim.
func (n *node) dropForgotten(t *testing.T) {
	t.Helper()
	const remove = `for ns in /run/netns/cni-*; do
  [ -e $ns ] || continue
  if mountpoint -q $ns; then nsenter --net=$ns ip -br link; umount $ns; else echo bare; fi
  rm $ns
done`
	out, err := n.Run("sh", "-c", remove)
	must(t, err)
	for line := range strings.Lines(out) {
		if what := strings.Fields(line)[0]; !slices.Contains([]string{"bare", "lo"}, what) {
			t.Errorf("a namespace that containerd has forgotten holds %s", what)
		}
	}
	for _, pid := range n.Processes() {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty at its end
		if !strings.Contains(string(command), "containerd-shim") {
			continue
		}
		out += strings.ReplaceAll(string(command), "\x00", " ") + "\n"
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
	}
	if out != "" {
		t.Logf("containerd has forgotten: %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
	}
}
