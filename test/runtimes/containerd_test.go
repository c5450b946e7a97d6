// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/l3edge/l3edge/pkg/lab"
)

const hostPort = 8180

func on(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// A pod with two containers lives through a container's end, and on its end leaves nothing, on two nodes at once.
func TestPods(t *testing.T) {
	l, nodes := up(t, "kubminion1", "kubminion3")
	outside := l.Hosts["outside"].Place
	n := nodes[0]
	s := n.run(t, "webpod", tcp80)
	web80 := s.serve(t, "web80", 80, 0)
	s.serve(t, "web8080", 8080, 0)
	published := on(n.Spec.Addr.Addr(), hostPort)

	t.Run("two containers share address and localhost", func(t *testing.T) {
		for port, container := range map[uint16]string{80: "web80", 8080: "web8080"} {
			must(t, answers(s.inside, fmt.Sprintf("127.0.0.1:%d", port), container))
			must(t, answers(outside, on(s.addr, port), container))
		}
	})
	t.Run("exec and logs work", func(t *testing.T) {
		if got, want := s.exec(t, web80, "/guest", "addresses"), s.addr.String()+"\n"; got != want {
			t.Errorf("inside web80 there are addresses %q, want %q", got, want)
		}
		s.start(t, "logger", 0, []string{"/guest", "addresses"}, nil)
		within(t, patience, "the log is written", func() error {
			text, err := os.ReadFile(n.File(filepath.Join(s.config.LogDirectory, s.log("logger", 0))))
			if err == nil && !strings.HasSuffix(string(text), " stdout F "+s.addr.String()+"\n") {
				err = fmt.Errorf("log: %q", text)
			}
			return err
		})
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
		far := nodes[1].run(t, "far")
		far.serve(t, "far", 8080, 0)
		for _, way := range []struct{ from, to *sandbox }{{s, far}, {far, s}} {
			a, err := way.from.inside.Ask(on(way.to.addr, 8080))
			must(t, err)
			if a.Client.Addr() != way.from.addr || a.Pod != way.to.config.Metadata.Name {
				t.Errorf("%s saw %s, want %s at %s", a.Pod, a.Client, way.from.addr, way.to.config.Metadata.Name)
			}
		}
		far.end(t)
		nodes[1].mustBeClean(t)
	})
	t.Run("a pod outlives containerd", func(t *testing.T) {
		n.Daemon.Kill()
		must(t, answers(outside, published, "web80"))
		n.start(t)
		must(t, answers(outside, published, "web80"))
	})
	t.Run("stopped twice and removed twice it leaves nothing", func(t *testing.T) {
		left, err := n.left()
		must(t, err)
		for _, what := range append(slices.Collect(maps.Keys(rests)), "processes") {
			if len(left[what]) == 0 {
				t.Errorf("a node with a pod seems to have no %s: the check is blind", what)
			}
		}
		n.stop(t, s.id)
		s.end(t)
		n.remove(t, s.id)
		n.mustBeClean(t)
		if outside.Reaches(published) == nil {
			t.Error("the hostPort still answers")
		}
	})
}

// Sixteen pods made and ended at once get sixteen addresses and leave nothing.
func TestManyAtOnce(t *testing.T) {
	_, nodes := up(t, "kubminion1")
	n := nodes[0]
	const many = 16
	ids := atOnce(t, many, func(ctx context.Context, i int) (string, error) {
		port := &cri.PortMapping{ContainerPort: 80, HostPort: int32(hostPort + i)}
		r, err := n.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: n.sandboxConfig(fmt.Sprintf("pod%d", i), port)})
		return r.GetPodSandboxId(), err
	})
	addrs := map[string]bool{}
	for _, id := range ids {
		status, err := n.runtime.PodSandboxStatus(call(t), &cri.PodSandboxStatusRequest{PodSandboxId: id})
		must(t, err)
		addrs[status.Status.Network.Ip] = true
	}
	if len(addrs) != many {
		t.Errorf("%d pods have the addresses %v", many, addrs)
	}
	atOnce(t, many, func(ctx context.Context, i int) (string, error) {
		_, err := n.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: ids[i]})
		if err == nil {
			_, err = n.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: ids[i]})
		}
		return "", err
	})
	n.mustBeClean(t)
}

// atOnce calls f with 0 to n-1 at once, and returns what it returned. Any error fails the test.
func atOnce(t *testing.T, n int, f func(ctx context.Context, i int) (string, error)) []string {
	t.Helper()
	out, errs := make([]string, n), make([]error, n)
	ctx := call(t)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i], errs[i] = f(ctx, i) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	return out
}

// The namespace of a pod goes without a word to the plugins: stopping it clears all that is ours nevertheless.
func TestNamespaceGone(t *testing.T) {
	_, nodes := up(t, "kubminion1")
	n := nodes[0]
	for _, how := range []struct{ name, command string }{
		{"its pin is gone", "umount $ns && rm $ns"},
		{"its pin is a bare file", "umount $ns"},
	} {
		t.Run(how.name, func(t *testing.T) {
			s := n.run(t, "pod", tcp80)
			must(t, s.inside.Net.Close())
			must(t, syscall.Kill(s.pause, syscall.SIGKILL))
			_, err := n.Run("sh", "-c", "for ns in /run/netns/cni-*; do "+how.command+" || exit; done")
			must(t, err)
			within(t, 10*time.Second, "the namespace dies", func() error {
				left, err := n.left()
				if err == nil && len(left["veths"]) > 0 {
					err = fmt.Errorf("%v", left["veths"])
				}
				return err
			})
			s.end(t)
			n.mustBeClean(t)
		})
	}
}

// dualStack is a list for pods of both families.
const dualStack = `{"cniVersion": "1.0.0", "name": "l3edge", "plugins": [
  {"type": "bridge-l3", "bridge": "docker0", "ranges": [[{"subnet": "10.10.10.0/24"}], [{"subnet": "fd00:10:10:10::/64"}]]},
  {"type": "portal", "capabilities": {"portMappings": true}}
]}
`

// HostPorts of both families and protocols, on all addresses of the node or on one. The server sees the true client, and
// a UDP client that keeps its port is not left with the pod before.
func TestDualStackHostPorts(t *testing.T) {
	l, _ := up(t)
	node, client := l.Hosts["kubminion1"], l.Hosts["kubminion2"] // neighbours on one segment
	must(t, node.WriteFile(conflist, dualStack))
	v6 := netip.MustParseAddr("fd00:20:30::62")
	for h, addr := range map[*lab.Host]string{node: v6.String(), client: "fd00:20:30::63"} {
		_, err := h.Run("ip", "address", "add", addr+"/64", "dev", lab.Uplink, "nodad")
		must(t, err)
	}
	n := newNode(t, node, saveImages(t))
	v4 := n.Spec.Addr.Addr()
	const udp, one = 8153, 8154
	ports := []*cri.PortMapping{
		tcp80,
		{Protocol: cri.Protocol_UDP, ContainerPort: 53, HostPort: udp},
		{Protocol: cri.Protocol_UDP, ContainerPort: 53, HostPort: one, HostIp: v6.String()},
	}
	first := n.run(t, "first", ports...)
	if len(first.more) != 1 || !first.more[0].Is6() {
		t.Fatalf("the pod's addresses: %v %v, want one of each family", first.addr, first.more)
	}
	first.serve(t, "web", 80, 0)
	first.serveUDP(t, "first", 53)
	clients := map[string]udpClient{}
	for _, at := range []string{on(v4, udp), on(v6, udp), on(v6, one)} {
		clients[at] = dialUDP(t, client.Place, at)
	}
	for _, node := range []netip.Addr{v4, v6} {
		a, err := client.Ask(on(node, hostPort))
		must(t, err)
		if a.Container != "web" || a.Client.Addr() == node {
			t.Errorf("hostPort at %s: %+v, want the true client at web", node, a)
		}
	}
	for at, c := range clients {
		who, saw, err := c.ask()
		if err != nil || who != "first" || saw != c.LocalAddr().String() {
			t.Errorf("UDP at %s: %q saw %q (%v), want first and %s", at, who, saw, err, c.LocalAddr())
		}
	}
	if _, _, err := dialUDP(t, client.Place, on(v4, one)).ask(); err == nil {
		t.Error("a hostPort of one address answers at another")
	}
	first.end(t)
	n.mustBeClean(t)
	second := n.run(t, "second", ports...)
	second.serveUDP(t, "second", 53)
	for at, c := range clients {
		within(t, patience, "the client of before at "+at+" reaches the new pod", func() error { return c.answers("second") })
	}
	second.end(t)
	n.mustBeClean(t)
}
