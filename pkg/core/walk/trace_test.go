// SPDX-License-Identifier: Apache-2.0

package walk

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// points are the steps that can be seen, as "host link src>dst".
func points(p Path) string {
	var out []string
	for _, s := range p.Steps {
		if s.Point != nil {
			out = append(out, fmt.Sprintf("%s %s %s>%s", s.Point.Host, s.Point.Link, s.Src, s.Dst))
		}
	}
	return strings.Join(append(out, string(p.Verdict)), "\n")
}

func fromPod(w World, host string) End {
	h, _ := w.At(host)
	return End{Host: &h, Pod: &h.Pods[0], Addr: h.Pods[0].Addrs[0]}
}

func fromHost(w World, host string) End {
	h, _ := w.At(host)
	return End{Host: &h}
}

func TestTrace(t *testing.T) {
	nft, user := article("nftables"), article("userspace")
	second := view.Pod{Name: "default/second", Alive: true, IfName: "eth0", Netns: "/run/netns/second", Veth: "veth-second", Bridge: "docker0", Addrs: []netip.Addr{addr("10.10.10.3")}}
	nft[0].Pods = append(nft[0].Pods, second)
	local, guarded := article("nftables"), article("nftables")
	local[0].Portald.Portals[0].Outside = &view.Choice{Drops: true}
	guarded[0].Portald.Portals[0].Sources = []netip.Prefix{prefix("192.0.2.0/24")}
	published := article("nftables")
	published[0].Pods[0].HostPorts = []view.HostPort{{Protocol: "tcp", Port: 8088, To: 8080}}
	for _, row := range []struct {
		what        string
		w           World
		from        End
		to, backend string
		want        string
		reason      string // of some step
	}{
		{"pod to pod of the same node", nft, fromPod(nft, "kubminion1"), "10.10.10.3:8080", "", `kubminion1 eth0 10.10.10.2>10.10.10.3:8080
kubminion1 veth-kubminion1 10.10.10.2>10.10.10.3:8080
kubminion1 veth-second 10.10.10.2>10.10.10.3:8080
kubminion1 eth0 10.10.10.2>10.10.10.3:8080
arrives`, ""},
		{"pod to pod of another node", nft, fromPod(nft, "kubminion1"), "10.10.30.2:8080", "", `kubminion1 eth0 10.10.10.2>10.10.30.2:8080
kubminion1 veth-kubminion1 10.10.10.2>10.10.30.2:8080
kubminion1 docker0 10.10.10.2>10.10.30.2:8080
kubminion1 ens18 10.10.10.2>10.10.30.2:8080
mls br20 10.10.10.2>10.10.30.2:8080
mls br192 10.10.10.2>10.10.30.2:8080
kubminion3 ens18 10.10.10.2>10.10.30.2:8080
kubminion3 docker0 10.10.10.2>10.10.30.2:8080
kubminion3 veth-kubminion3 10.10.10.2>10.10.30.2:8080
kubminion3 eth0 10.10.10.2>10.10.30.2:8080
arrives`, ""},
		{"pod to service, nftables", nft, fromPod(nft, "kubminion1"), "10.100.87.105:80", "10.10.30.2:8080", `kubminion1 eth0 10.10.10.2>10.100.87.105:80
kubminion1 veth-kubminion1 10.10.10.2>10.100.87.105:80
kubminion1 docker0 10.10.10.2>10.10.30.2:8080
kubminion1 ens18 10.10.10.2>10.10.30.2:8080
mls br20 10.10.10.2>10.10.30.2:8080
mls br192 10.10.10.2>10.10.30.2:8080
kubminion3 ens18 10.10.10.2>10.10.30.2:8080
kubminion3 docker0 10.10.10.2>10.10.30.2:8080
kubminion3 veth-kubminion3 10.10.10.2>10.10.30.2:8080
kubminion3 eth0 10.10.10.2>10.10.30.2:8080
arrives`, "the destination becomes 10.10.30.2:8080: 10.100.87.105 is on no interface anywhere"},
		{"pod to service, answered by itself", nft, fromPod(nft, "kubminion1"), "10.100.87.105:80", "10.10.10.2:8080", `kubminion1 eth0 10.10.10.2>10.100.87.105:80
kubminion1 veth-kubminion1 10.10.10.2>10.100.87.105:80
kubminion1 veth-kubminion1 10.10.10.1>10.10.10.2:8080
kubminion1 eth0 10.10.10.1>10.10.10.2:8080
arrives`, "the source becomes 10.10.10.1: a pod balanced to itself"},
		{"pod to service, userspace", user, fromPod(user, "kubminion1"), "10.100.87.105:80", "10.10.30.2:8080", `kubminion1 eth0 10.10.10.2>10.100.87.105:80
kubminion1 veth-kubminion1 10.10.10.2>10.100.87.105:80
kubminion1 docker0 10.10.10.2>10.10.10.1:39770
kubminion1 ens18 10.20.30.62>10.10.30.2:8080
mls br20 10.20.30.62>10.10.30.2:8080
mls br192 10.20.30.62>10.10.30.2:8080
kubminion3 ens18 10.20.30.62>10.10.30.2:8080
kubminion3 docker0 10.20.30.62>10.10.30.2:8080
kubminion3 veth-kubminion3 10.20.30.62>10.10.30.2:8080
kubminion3 eth0 10.20.30.62>10.10.30.2:8080
arrives`, "portald itself connects, and the pod's connection ends here"},
		{"node to service", nft, fromHost(nft, "kubminion1"), "10.100.87.105:80", "10.10.30.2:8080", `kubminion1 ens18 10.20.30.62>10.10.30.2:8080
mls br20 10.20.30.62>10.10.30.2:8080
mls br192 10.20.30.62>10.10.30.2:8080
kubminion3 ens18 10.20.30.62>10.10.30.2:8080
kubminion3 docker0 10.20.30.62>10.10.30.2:8080
kubminion3 veth-kubminion3 10.20.30.62>10.10.30.2:8080
kubminion3 eth0 10.20.30.62>10.10.30.2:8080
arrives`, ""},
		{"outside to service by a node without the pod", nft, fromHost(nft, "outside"), "10.100.87.105:80", "10.10.30.2:8080", `outside ens18 172.16.0.100>10.100.87.105:80
mls br172 172.16.0.100>10.100.87.105:80
mls br20 172.16.0.100>10.100.87.105:80
kubminion1 ens18 172.16.0.100>10.100.87.105:80
kubminion1 ens18 10.20.30.62>10.10.30.2:8080
mls br20 10.20.30.62>10.10.30.2:8080
mls br192 10.20.30.62>10.10.30.2:8080
kubminion3 ens18 10.20.30.62>10.10.30.2:8080
kubminion3 docker0 10.20.30.62>10.10.30.2:8080
kubminion3 veth-kubminion3 10.20.30.62>10.10.30.2:8080
kubminion3 eth0 10.20.30.62>10.10.30.2:8080
arrives`, "neither client nor endpoint is on this node: the answer would not come back this way"},
		{"outside to service by the node of the pod", nft, fromHost(nft, "outside"), "10.100.87.105:80", "10.10.10.2:8080", `outside ens18 172.16.0.100>10.100.87.105:80
mls br172 172.16.0.100>10.100.87.105:80
mls br20 172.16.0.100>10.100.87.105:80
kubminion1 ens18 172.16.0.100>10.100.87.105:80
kubminion1 docker0 172.16.0.100>10.10.10.2:8080
kubminion1 veth-kubminion1 172.16.0.100>10.10.10.2:8080
kubminion1 eth0 172.16.0.100>10.10.10.2:8080
arrives`, "the destination becomes 10.10.10.2:8080"},
		{"a service that does not exist", nft, fromPod(nft, "kubminion1"), "10.100.1.1:80", "", `kubminion1 eth0 10.10.10.2>10.100.1.1:80
kubminion1 veth-kubminion1 10.10.10.2>10.100.1.1:80
kubminion1 docker0 10.10.10.2>10.100.1.1:80
refused`, "no service has this address of the portal net"},
		{"outside to a service of policy Local, by a node without endpoints", local, fromHost(local, "outside"), "10.100.87.105:80", "", `outside ens18 172.16.0.100>10.100.87.105:80
mls br172 172.16.0.100>10.100.87.105:80
mls br20 172.16.0.100>10.100.87.105:80
kubminion1 ens18 172.16.0.100>10.100.87.105:80
dropped`, "policy Local, and no endpoint is on this node"},
		{"a source that may not come", guarded, fromPod(guarded, "kubminion1"), "10.100.87.105:80", "", `kubminion1 eth0 10.10.10.2>10.100.87.105:80
kubminion1 veth-kubminion1 10.10.10.2>10.100.87.105:80
kubminion1 docker0 10.10.10.2>10.100.87.105:80
dropped`, "10.10.10.2 lies in none of the source ranges"},
		{"outside to a host port", published, fromHost(published, "outside"), "10.20.30.62:8088", "", `outside ens18 172.16.0.100>10.20.30.62:8088
mls br172 172.16.0.100>10.20.30.62:8088
mls br20 172.16.0.100>10.20.30.62:8088
kubminion1 ens18 172.16.0.100>10.20.30.62:8088
kubminion1 docker0 172.16.0.100>10.10.10.2:8080
kubminion1 veth-kubminion1 172.16.0.100>10.10.10.2:8080
kubminion1 eth0 172.16.0.100>10.10.10.2:8080
arrives`, "the pod publishes the port (hostPort)"},
		{"itself", nft, fromPod(nft, "kubminion1"), "10.10.10.2:8080", "", "kubminion1 lo 10.10.10.2>10.10.10.2:8080\narrives", ""},
		{"a pod seen from one node only", World{nft[0]}, fromPod(nft, "kubminion1"), "10.10.30.2:8080", "", `kubminion1 eth0 10.10.10.2>10.10.30.2:8080
kubminion1 veth-kubminion1 10.10.10.2>10.10.30.2:8080
kubminion1 docker0 10.10.10.2>10.10.30.2:8080
kubminion1 ens18 10.10.10.2>10.10.30.2:8080
goes on beyond the hosts that were seen`, ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			backend, _ := netip.ParseAddrPort(row.backend)
			p := Trace(row.w, row.from, at(row.to), backend)
			if got := points(p); got != row.want {
				t.Errorf("got\n%s\nwant\n%s", got, row.want)
			}
			why := ""
			for _, s := range p.Steps {
				why += s.Why + "\n"
			}
			if !strings.Contains(why, row.reason) {
				t.Errorf("no step says %q, but\n%s", row.reason, why)
			}
		})
	}
}
