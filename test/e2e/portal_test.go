// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

var vipAddr = netip.MustParseAddrPort(vip)

// Promise 7: the portal of 2015: the article's two chains, a random proxy port per service, a log that tells.
func TestPromise07TheArticlesChains(t *testing.T) {
	l := routed(t, lab.Embedded)
	portal(t, l, "userspace")
	node := l.Hosts["kubminion1"]
	rules := run(t, node.Place, "iptables-save", "-t", "nat")
	ports := map[string]bool{}
	for service, vip := range map[string]string{
		"kubernetes": "10.100.0.2/32 -p tcp -m comment --comment %s -m tcp --dport 443", "kubernetes-ro": "10.100.0.1/32 -p tcp -m comment --comment %s -m tcp --dport 80",
		"webfrontend": "10.100.87.105/32 -p tcp -m comment --comment %s -m tcp --dport 80",
	} {
		match := regexp.QuoteMeta(fmt.Sprintf(vip, service))
		redirect := regexp.MustCompile(`(?m)^-A KUBE-PORTALS-CONTAINER -d ` + match + ` -j REDIRECT --to-ports (\d+)$`).FindStringSubmatch(rules)
		dnat := regexp.MustCompile(`(?m)^-A KUBE-PORTALS-HOST -d ` + match + ` -j DNAT --to-destination 10\.20\.30\.62:(\d+)$`).FindStringSubmatch(rules)
		if redirect == nil || dnat == nil || redirect[1] != dnat[1] {
			t.Errorf("%s: the REDIRECT and the DNAT to the same port are not both in\n%s", service, rules)
			continue
		}
		if ports[redirect[1]] {
			t.Errorf("two services share the proxy port %s", redirect[1])
		}
		ports[redirect[1]] = true
		if log := node.Portald.Log(); !regexp.MustCompile(`(?m)portal.*` + service + `\b`).MatchString(log) {
			t.Errorf("the log does not tell of the portal for %s:\n%s", service, log)
		}
	}
	for _, jump := range []string{"-A PREROUTING .*-j KUBE-PORTALS-CONTAINER", "-A OUTPUT .*-j KUBE-PORTALS-HOST"} {
		if !regexp.MustCompile(`(?m)^` + strings.ReplaceAll(jump, " .*", "( .*)? ") + `$`).MatchString(rules) {
			t.Errorf("no jump %s in\n%s", jump, rules)
		}
	}
	if strings.Contains(rules, "-A POSTROUTING") {
		t.Errorf("nat POSTROUTING is not empty:\n%s", rules)
	}
	for _, addr := range []string{"10.100.0.2:443", "10.100.0.1:80"} {
		if a := ask(t, node.Place, addr); a.Node != "kubmasta" {
			t.Errorf("%s is answered by %s, want kubmasta", addr, a.Node)
		}
	}
	t.Run("a changed file takes effect without a restart", func(t *testing.T) {
		fileTakesEffect(t, l, node)
	})
}

// fileTakesEffect changes webfrontend's manifest twice on a node: the port moves and comes back.
func fileTakesEffect(t *testing.T, l *lab.Lab, node *lab.Host) {
	t.Helper()
	web := l.Services["webfrontend"]
	moved := web
	moved.Port = 8000
	must(t, node.WriteFile(lab.ServicesDir+"/webfrontend.yaml", moved.Manifest()))
	labtest.Within(t, 5*time.Second, "the new port", func() error { return node.Reaches("10.100.87.105:8000") })
	labtest.Within(t, 5*time.Second, "the old port is gone", func() error {
		if node.Reaches(vip) == nil {
			return fmt.Errorf("%s still answers", vip)
		}
		return nil
	})
	must(t, node.WriteFile(lab.ServicesDir+"/webfrontend.yaml", web.Manifest()))
	labtest.Within(t, 5*time.Second, "back", func() error { return node.Reaches(vip) })
}

// spread asks 100 times and wants answers from all four backends.
func spread(t *testing.T, from *place.Place) {
	t.Helper()
	count := map[string]int{}
	for range 100 {
		count[ask(t, from, vip).Pod]++
	}
	if len(count) != 4 {
		t.Errorf("100 requests from %s went to %v, want all four backends", from.Name, count)
	}
	t.Logf("100 requests from %s: %v", from.Name, count)
}

// captured is how many requests are watched packet by packet: no more than fit into a capture that nobody reads.
const captured = 20

// watched asks the service from a pod, counts answers from other nodes, and wants each backend to have seen the client.
func watched(t *testing.T, from *lab.Pod, client netip.Addr) (remote int) {
	t.Helper()
	for range captured {
		a := ask(t, from.Place, vip)
		if a.Node == from.Host.Name {
			continue
		}
		remote++
		if a.Client.Addr() != client {
			t.Errorf("%s saw %s, want %s", a.Pod, a.Client, client)
		}
	}
	return remote
}

// Promise 8: a full proxy: the pod talks to the portal and nobody else, and on the wire the node talks to the backend.
func TestPromise08TwoConnections(t *testing.T) {
	l := routed(t, lab.Embedded)
	pods := portal(t, l, "userspace")
	node, client := l.Hosts["kubminion1"], addPod(t, l, "kubminion1", "client")
	nodeAddr := node.Spec.Addr.Addr()

	onVeth := capture(t, node, client.Veth)
	onWire := capture(t, node, lab.Uplink, 80, 8080)
	remote := watched(t, client, nodeAddr)
	veth, wire := onVeth(), onWire()
	for _, p := range veth {
		if !p.Between(anyPort(client.IP), vipAddr) {
			t.Errorf("on the pod's veth: %s, want only %s and the portal", p, client.IP)
		}
	}
	if got := place.Flows(veth); got != captured {
		t.Errorf("%d connections between the pod and the portal for %d requests", got, captured)
	}
	for _, p := range wire {
		backend := false
		for _, b := range pods[1:] {
			backend = backend || p.Between(anyPort(nodeAddr), netip.AddrPortFrom(b.IP, 8080))
		}
		if !backend {
			t.Errorf("on ens18: %s, want only %s and a backend's port 8080", p, nodeAddr)
		}
	}
	if got := place.Flows(wire); got != remote || remote == 0 {
		t.Errorf("%d connections on ens18 for %d requests to other nodes", got, remote)
	}
	spread(t, client.Place)
	spread(t, node.Place)
}

// Promise 9: the portal in the kernel: one connection, and the backend sees the true pod, wherever it is.
func TestPromise09OneConnection(t *testing.T) {
	l := routed(t, lab.Embedded)
	pods := portal(t, l, "nftables")
	node := l.Hosts["kubminion1"]
	client := addPod(t, l, "kubminion1", "client")

	onWire := capture(t, node, lab.Uplink, 80, 8080)
	remote := watched(t, client, client.IP)
	wire := onWire()
	for _, p := range wire {
		if p.Src.Addr() != client.IP && p.Dst.Addr() != client.IP {
			t.Errorf("on ens18: %s, want the pod's own address %s", p, client.IP)
		}
	}
	if got := place.Flows(wire); got != remote || remote == 0 {
		t.Errorf("%d connections on ens18 for %d requests to other nodes", got, remote)
	}
	spread(t, client.Place)
	spread(t, node.Place)

	alone := func(t *testing.T, backend *lab.Pod) {
		t.Helper()
		web := l.Services["webfrontend"]
		web.Endpoints = []topology.Endpoint{{Addr: backend.IP, Node: backend.Host.Name}}
		must(t, l.PublishService(web))
		labtest.Within(t, 5*time.Second, "one endpoint", func() error {
			for range 10 {
				if a, err := node.Ask(vip); err != nil {
					return err
				} else if a.Pod != backend.Info.Name {
					return fmt.Errorf("%s still answers", a.Pod)
				}
			}
			return nil
		})
	}
	t.Run("client and backend on the same bridge", func(t *testing.T) {
		alone(t, pods[0])
		if a := ask(t, client.Place, vip); a.Client.Addr() != client.IP || a.Pod != pods[0].Info.Name {
			t.Errorf("%s saw %s, want %s at %s", a.Pod, a.Client, client.IP, pods[0].Info.Name)
		}
	})
	t.Run("a pod balanced to itself", func(t *testing.T) {
		alone(t, pods[0])
		if a := ask(t, pods[0].Place, vip); a.Pod != pods[0].Info.Name {
			t.Errorf("%s answered, want the pod itself", a.Pod)
		}
	})
	t.Run("a changed file takes effect without a restart", func(t *testing.T) {
		fileTakesEffect(t, l, node)
	})
}
