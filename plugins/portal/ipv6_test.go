// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// dualStack gives everybody in the world an IPv6 address too.
func dualStack(w *world) {
	nstest.Sh(w.t, w.node, `ip -6 addr add fd00:20::62/64 dev ens18 nodad; ip -6 addr add fd00:10::1/64 dev docker0 nodad
		echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables`)
	nstest.Sh(w.t, w.out, "ip -6 addr add fd00:20::1/64 dev eth0 nodad; ip -6 route add fd00:10::/64 via fd00:20::62")
	for name, pod := range w.pods {
		a := addrs6[name]
		nstest.Sh(w.t, pod, "ip -6 addr add "+a+"/64 dev eth0 nodad; ip -6 route add default via fd00:10::1")
		w.serve(name, "tcp", "["+a+"]:80")
		w.serve(name, "udp", "["+a+"]:53")
	}
	// Neighbours are asked from the link-local addresses, which the kernel gave when the links came up.
	for _, h := range []*netns.Handle{w.node, w.out, w.pods["web"], w.pods["other"]} {
		for deadline := time.Now().Add(10 * time.Second); nstest.Sh(w.t, h, "ip -6 addr show tentative") != ""; {
			if time.Now().After(deadline) {
				w.t.Fatal("addresses stay tentative")
			}
		}
	}
}

var addrs6 = map[string]string{"web": "fd00:10::2", "other": "fd00:10::3"}

// with6 is the previous result of a pod with these addresses.
func with6(pod string, as ...string) string {
	var ips []string
	for _, a := range as {
		ips = append(ips, fmt.Sprintf(`{"address":%q,"interface":2}`, a))
	}
	return fmt.Sprintf(`,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"docker0"},{"name":"v%s"},{"name":"eth0","sandbox":"/x"}],"ips":[%s]}`,
		pod, strings.Join(ips, ","))
}

func TestHostPortsOverIPv6(t *testing.T) {
	w := newWorld(t)
	dualStack(w)
	both := with6("web", addrs["web"]+"/24", addrs6["web"]+"/64")
	w.must("ADD", "web", ports(web80)+both)
	w.must("ADD", "other", ports(`{"hostPort":80,"containerPort":80,"hostIP":"fd00:10::1"}`)+with6("other", addrs6["other"]+"/64"))
	for _, tt := range []struct {
		name        string
		from        *netns.Handle
		network, at string
		want        string
	}{
		{"from outside, which sees the true client", w.out, "tcp", "[fd00:20::62]:80", "web fd00:20::1"},
		{"by UDP", w.out, "udp", "[fd00:20::62]:5353", "web fd00:20::1"},
		{"by IPv4 as before", w.out, "tcp", "10.20.30.62:80", "web 10.20.30.1"},
		{"on the one address that another pod has asked for", w.out, "tcp", "[fd00:10::1]:80", "other fd00:20::1"},
		{"from another pod of the node", w.pods["other"], "tcp", "[fd00:20::62]:80", "web fd00:10::3"},
		{"from the node itself", w.node, "tcp", "[fd00:20::62]:80", "web fd00:20::62"},
		{"from the pod itself, another source because the pod could not answer its own", w.pods["web"], "tcp", "[fd00:20::62]:80", "web fd00:10::1"},
		{"not on ::1, at once", w.node, "tcp", "[::1]:80", "dial tcp [::1]:80: connect: connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := w.ask(tt.from, tt.network, tt.at); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.at, got, tt.want)
			}
		})
	}
	w.must("CHECK", "web", ports(web80)+both)
	if code, out := w.call("ADD", "other/2", ports(`{"hostPort":80,"containerPort":80}`)+with6("other", addrs6["other"]+"/64")); code == 0 || !strings.Contains(out, "hostPort TCP [::]:80 is taken by net/id-web/eth0 for [fd00:10::2]:80") {
		t.Errorf("a taken port: %d %s", code, out)
	}
	for range 2 {
		w.must("DEL", "web", "")
	}
	for _, at := range []string{"[fd00:20::62]:80", "10.20.30.62:80"} {
		if got := w.ask(w.out, "tcp", at); !strings.Contains(got, "refused") {
			t.Errorf("%s after DEL: %q", at, got)
		}
	}
	if got := w.ask(w.out, "tcp", "[fd00:10::1]:80"); got != "other fd00:20::1" {
		t.Errorf("the other pod's port: %q", got)
	}
	if rules := nstest.Sh(t, w.node, "nft list ruleset"); strings.Contains(rules, addrs6["web"]+" ") {
		t.Errorf("left of the pod:\n%s", rules)
	}
}
