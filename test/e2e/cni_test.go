// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// Promise 1: bridge-l3 out of /opt/cni/bin makes the bridge on the first ADD, gives pods the next addresses, and DEL
// leaves nothing behind, however often it is called.
func TestPromise01PodsOnABridge(t *testing.T) {
	l := labtest.Up(t, lab.Embedded)
	node := l.Hosts["kubminion1"]
	if out, err := node.Run("ip", "link", "show", "docker0"); err == nil {
		t.Fatalf("docker0 is there before the first pod: %s", out)
	}
	before := run(t, node.Place, "ip", "-br", "link")
	one, two := addPod(t, l, "kubminion1", "one"), addPod(t, l, "kubminion1", "two")

	if out := run(t, node.Place, "ip", "-br", "-4", "addr", "show", "docker0"); !strings.Contains(out, " 10.10.10.1/24 ") {
		t.Errorf("docker0 has not the subnet's first address: %s", out)
	}
	if out := run(t, node.Place, "cat", "/proc/sys/net/ipv4/ip_forward"); out != "1\n" {
		t.Errorf("the node does not forward: %s", out)
	}
	if one.IP.String() != "10.10.10.2" || two.IP.String() != "10.10.10.3" {
		t.Errorf("pods got %s and %s, want the next two addresses", one.IP, two.IP)
	}
	if out := run(t, one.Place, "ip", "route"); !strings.HasPrefix(out, "default via 10.10.10.1 dev eth0") {
		t.Errorf("the pod's default route is not the bridge: %s", out)
	}
	uplink := run(t, node.Place, "cat", "/sys/class/net/ens18/mtu")
	if out := run(t, one.Place, "ip", "link", "show", "eth0"); !strings.Contains(out, " mtu "+strings.TrimSpace(uplink)+" ") {
		t.Errorf("the pod's MTU is not the uplink's %s: %s", uplink, out)
	}
	if out := run(t, node.Place, "bridge", "link", "show", "dev", one.Veth); !strings.Contains(out, "master docker0") {
		t.Errorf("%s is not on docker0: %s", one.Veth, out)
	}

	must(t, one.Delete())
	must(t, two.Delete())
	after := run(t, node.Place, "sh", "-c", "ip -br link | grep -v docker0")
	if strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("links are left behind:\n%s\nbefore:\n%s", after, before)
	}
	if out := run(t, node.Place, "find", "/run/l3edge", "/run/netns", "-type", "f"); strings.Contains(out, "10.10.10") || strings.Contains(out, "cni-") {
		t.Errorf("files are left behind:\n%s", out)
	}
	for _, netns := range []string{"", one.Info.Netns} { // as a runtime does it, and one that has forgotten that the namespace is gone
		conf := `{"cniVersion":"1.0.0","name":"l3edge","type":"bridge-l3","bridge":"docker0","subnet":"10.10.10.0/24"}`
		if out, err := node.RunInput(conf, "env", "CNI_COMMAND=DEL", "CNI_CONTAINERID=one", "CNI_IFNAME=eth0",
			"CNI_PATH=/opt/cni/bin", "CNI_NETNS="+netns, "/opt/cni/bin/bridge-l3"); err != nil {
			t.Errorf("a repeated DEL with CNI_NETNS=%q: %v %s", netns, err, out)
		}
	}
	if again := addPod(t, l, "kubminion1", "again"); again.IP.String() != "10.10.10.2" && again.IP.String() != "10.10.10.4" {
		t.Errorf("after DEL a new pod got %s", again.IP)
	}
}

// Promise 2: nothing is masqueraded anywhere: servers in pods and outside see the true address of a pod.
func TestPromise02NoMasquerade(t *testing.T) {
	l := routed(t, lab.Embedded)
	pods := portal(t, l, "nftables")
	client := addPod(t, l, "kubminion1", "client")
	servers := []string{serveOutside(t, l)}
	for _, p := range pods {
		servers = append(servers, on(p.IP, 8080))
	}
	for _, server := range servers {
		if a := ask(t, client.Place, server); a.Client.Addr() != client.IP {
			t.Errorf("%s saw %s, want the pod's own address %s", server, a.Client, client.IP)
		}
	}
	for _, h := range l.Nodes() {
		if out := run(t, h.Place, "iptables-save", "-t", "nat"); strings.Contains(out, "-A POSTROUTING") {
			t.Errorf("%s: nat POSTROUTING is not empty:\n%s", h.Name, out)
		}
	}
}

// Promise 3: pods are reached from outside by their own address, on both segments, with no port mapping.
func TestPromise03PodsAreReachable(t *testing.T) {
	l := routed(t, lab.Embedded)
	pods, err := l.AddWebPods()
	must(t, err)
	from := []*place.Place{l.Hosts["outside"].Place, l.Hosts["kubmasta"].Place}
	for _, p := range pods {
		from = append(from, p.Place, p.Host.Place)
	}
	for _, client := range from {
		for _, server := range pods {
			a := ask(t, client, on(server.IP, 8080))
			if a.Pod != server.Info.Name || a.Node != server.Host.Name || a.Address.Addr() != server.IP {
				t.Errorf("from %s to %s: %s on %s answered as %s", client.Name, server.Name, a.Pod, a.Node, a.Address)
			}
		}
	}
}

// Promise 6: a pod is its pause: containers come and go in a namespace that stays, and publish ports on the node.
func TestPromise06PauseHoldsThePod(t *testing.T) {
	l := routed(t, lab.Embedded)
	node := l.Hosts["kubminion1"]
	web80, web8080 := lab.Container{Name: "web80", Port: 80, HostPort: 80}, lab.Container{Name: "web8080", Port: 8080, HostPort: 8080}
	pod := addPod(t, l, "kubminion1", "webpod", web80, web8080)

	t.Run("containers know the services that existed when they started", func(t *testing.T) {
		env, err := pod.Get("127.0.0.1:80", "/env")
		must(t, err)
		for _, want := range []string{"WEBFRONTEND_SERVICE_HOST=10.100.87.105", "WEBFRONTEND_SERVICE_PORT=80", "KUBERNETES_SERVICE_HOST=10.100.0.2", "KUBERNETES_RO_SERVICE_PORT=80"} {
			if !strings.Contains(env, want+"\n") {
				t.Errorf("%s is missing in\n%s", want, env)
			}
		}
	})
	outside := l.Hosts["outside"].Place
	answers := func(t *testing.T, from *place.Place, addr, container string) {
		t.Helper()
		out, err := from.Get(addr, "/")
		must(t, err)
		if !strings.HasPrefix(out, "container: "+container+"\npod: webpod\n") {
			t.Errorf("from %s, %s: want container %s of webpod, got\n%s", from.Name, addr, container, out)
		}
	}
	refuses := func(t *testing.T, from *place.Place, addr string) {
		t.Helper()
		if from.Reaches(addr) == nil {
			t.Errorf("from %s, %s should not answer", from.Name, addr)
		}
	}
	t.Run("two containers share address, ports and localhost", func(t *testing.T) {
		answers(t, outside, on(pod.IP, 80), "web80")
		answers(t, outside, on(pod.IP, 8080), "web8080")
		answers(t, pod.Place, "127.0.0.1:80", "web80")
		answers(t, pod.Place, "127.0.0.1:8080", "web8080")
	})
	t.Run("hostPorts answer on the node's address", func(t *testing.T) {
		others := []*place.Place{outside, l.Hosts["kubminion2"].Place, l.Hosts["kubminion3"].Place, l.Hosts["kubmasta"].Place}
		for _, from := range append(others, node.Place) {
			answers(t, from, on(node.Spec.Addr.Addr(), 80), "web80")
			answers(t, from, on(node.Spec.Addr.Addr(), 8080), "web8080")
		}
		if a := ask(t, outside, on(node.Spec.Addr.Addr(), 80)); a.Client.Addr().String() != "172.16.0.100" {
			t.Errorf("behind a hostPort the server saw %s, want the client outside", a.Client)
		}
	})
	t.Run("killing containers leaves the namespace, the address and the others' traffic", func(t *testing.T) {
		pod.Containers["web80"].Kill()
		answers(t, outside, on(pod.IP, 8080), "web8080")
		refuses(t, outside, on(pod.IP, 80))
		pod.Containers["web8080"].Kill()
		if out := run(t, pod.Place, "ip", "-br", "-4", "addr", "show", "eth0"); !strings.Contains(out, pod.IP.String()+"/24") {
			t.Errorf("the address is gone: %s", out)
		}
		if _, err := fmt.Sscan(run(t, node.Place, "pgrep", "-cx", "pause"), new(int)); err != nil {
			t.Error(err)
		}
		must(t, pod.StartContainer(web8080))
		answers(t, outside, on(pod.IP, 8080), "web8080")
		answers(t, outside, on(node.Spec.Addr.Addr(), 8080), "web8080")
	})
	t.Run("hostPorts disappear with the pod", func(t *testing.T) {
		must(t, pod.Delete())
		for _, from := range []*place.Place{outside, l.Hosts["kubminion2"].Place, node.Place} {
			refuses(t, from, on(node.Spec.Addr.Addr(), 80))
			refuses(t, from, on(node.Spec.Addr.Addr(), 8080))
		}
		labtest.Within(t, 2*time.Second, "no rule of it is left", func() error {
			if out := run(t, node.Place, "nft", "list", "ruleset"); strings.Contains(out, pod.IP.String()) {
				return fmt.Errorf("rules of the pod are left:\n%s", out)
			}
			return nil
		})
	})
}
