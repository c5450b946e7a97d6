// SPDX-License-Identifier: Apache-2.0

package walk

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/view"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
	at     = netip.MustParseAddrPort
)

// host is a node of the article with one pod: n is the third byte of its pods' addresses.
func host(name, own, gateway, pods string, mode string) view.Host {
	s := prefix(pods)
	gw, ip := s.Addr().Next(), s.Addr().Next().Next()
	p := view.Portal{VIP: addr("10.100.87.105"), Protocol: "TCP", Port: 80, Service: "default/webfrontend", Mode: mode,
		Endpoints: []netip.AddrPort{at("10.10.10.2:8080"), at("10.10.30.2:8080")}}
	if mode == "userspace" {
		p.ProxyPort = 39770
	}
	return view.Host{
		Name: name, Node: &node.Node{Name: name, PodSubnets: []netip.Prefix{s}, Uplink: "ens18", Addresses: []netip.Addr{prefix(own).Addr()}},
		Routed:   view.Routed{Sessions: []view.Session{{Peer: "mls", Address: addr(gateway), State: "established"}}},
		Portald:  view.Portald{Mode: mode, Synced: true, Nets: []netip.Prefix{prefix("10.100.0.0/16")}, Portals: []view.Portal{p}},
		Networks: []view.Network{{Name: "l3edge", Bridge: "docker0", Plugins: []string{"bridge-l3"}}},
		Settings: map[string]string{"net/bridge/bridge-nf-call-iptables": "1", "net/ipv4/ip_forward": "1"},
		Links: []view.Link{
			{Name: "ens18", Up: true, Addrs: []netip.Prefix{prefix(own)}},
			{Name: "docker0", Kind: "bridge", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(gw, 24)}}, {Name: "veth-" + name, Master: "docker0", Up: true},
		},
		Routes: []view.Route{{Dst: prefix("0.0.0.0/0"), Via: addr(gateway), Dev: "ens18"}, {Dst: prefix(own).Masked(), Dev: "ens18"}, {Dst: s, Dev: "docker0"}},
		Pods: []view.Pod{{Name: "default/web-" + name, Container: "c-" + name, IfName: "eth0", Network: "l3edge", Netns: "/run/netns/" + name, Alive: true, Veth: "veth-" + name, Bridge: "docker0",
			Addrs: []netip.Addr{ip}, Gateways: []netip.Addr{gw}, Want: view.Side{Addrs: []netip.Prefix{netip.PrefixFrom(ip, 24)}}, Processes: []view.Process{{Pid: 7, Name: "pause"}, {Pid: 8, Name: "web8080"}}}},
	}
}

func article(mode string) World {
	mls := view.Host{
		Name: "mls", Routed: view.Routed{Problem: "does not run"}, Portald: view.Portald{Problem: "does not run"},
		Links: []view.Link{
			{Name: "br20", Kind: "bridge", Up: true, Addrs: []netip.Prefix{prefix("10.20.30.1/24")}}, {Name: "br192", Kind: "bridge", Up: true, Addrs: []netip.Prefix{prefix("192.168.10.1/24")}},
			{Name: "br172", Kind: "bridge", Up: true, Addrs: []netip.Prefix{prefix("172.16.0.1/24")}},
		},
		Routes: []view.Route{
			{Dst: prefix("10.20.30.0/24"), Dev: "br20"}, {Dst: prefix("192.168.10.0/24"), Dev: "br192"}, {Dst: prefix("172.16.0.0/24"), Dev: "br172"},
			{Dst: prefix("10.10.10.0/24"), Via: addr("10.20.30.62"), Dev: "br20"}, {Dst: prefix("10.10.30.0/24"), Via: addr("192.168.10.64"), Dev: "br192"},
			{Dst: prefix("10.100.0.0/16"), Via: addr("10.20.30.62"), Dev: "br20"},
		},
	}
	outside := view.Host{
		Name: "outside", Routed: view.Routed{Problem: "does not run"}, Portald: view.Portald{Problem: "does not run"},
		Links:  []view.Link{{Name: "ens18", Up: true, Addrs: []netip.Prefix{prefix("172.16.0.100/24")}}},
		Routes: []view.Route{{Dst: prefix("0.0.0.0/0"), Via: addr("172.16.0.1"), Dev: "ens18"}, {Dst: prefix("172.16.0.0/24"), Dev: "ens18"}},
	}
	return World{host("kubminion1", "10.20.30.62/24", "10.20.30.1", "10.10.10.0/24", mode), host("kubminion3", "192.168.10.64/24", "192.168.10.1", "10.10.30.0/24", mode), mls, outside}
}

func TestWhois(t *testing.T) {
	w := article("userspace")
	w[0].Pods = append(w[0].Pods, view.Pod{Name: "default/old", Addrs: []netip.Addr{addr("10.10.10.7")}, IfName: "eth0"})
	w[0].Pods[0].HostPorts = []view.HostPort{{Protocol: "tcp", Port: 8088, To: 8080}}
	w[0].Leases = []view.Lease{{Network: "l3edge", Addr: addr("10.10.10.8"), Container: "x", Pod: "default/older"}, {Network: "l3edge", Addr: addr("10.10.10.9"), Container: "y"}}
	w[0].Portald.Portals = slices.Clone(w[0].Portald.Portals)
	w[0].Portald.Portals = append(w[0].Portald.Portals, view.Portal{
		VIP: addr("10.20.30.62"), Protocol: "TCP", Port: 30080, Service: "default/webfrontend", Kind: "NodePort", Mode: "userspace", ProxyPort: 39771,
	})
	w[0].Portald.Portals[0].Traffic = &traffic.Stats{Accepted: 9, Active: 2, BytesIn: 100, BytesOut: 2000, Retries: 3, Failed: 1,
		Endpoints: []traffic.Endpoint{{Addr: at("10.10.30.2:8080"), State: traffic.Resting, Active: 2}}}
	for _, row := range []struct {
		what, address string
		kind          Kind
		title, fact   string
	}{
		{"a service", "10.100.87.105:80", IsVIP, "10.100.87.105 is service webfrontend, port 80", "endpoint: 10.10.30.2:8080, pod web-kubminion3 on kubminion3"},
		{"a service without its port", "10.100.87.105:0", IsVIP, "10.100.87.105 is service webfrontend, port 80", "proxy port: 39770 on kubminion1"},
		{"what the proxy has carried for it", "10.100.87.105:80", IsVIP, "", "carried: 9 connections, 2 of them open, 100 bytes in, 2000 out; 3 retries, 1 failed, 0 over a limit"},
		{"an endpoint that rests", "10.100.87.105:80", IsVIP, "", "endpoint: 10.10.30.2:8080, pod web-kubminion3 on kubminion3, resting, 2 open"},
		{"a lease without a pod's name", "10.10.10.9:0", IsDeadPod, "10.10.10.9 was leased to container y, which is gone", ""},
		{"its proxy port", "10.20.30.62:39770", IsProxy, "port 39770 of kubminion1 is portald's for webfrontend TCP 10.100.87.105:80", "--dport 80 -j REDIRECT --to-ports 39770"},
		{"a service's port of the node", "10.20.30.62:30080", IsVIP, "", "iptables -t nat -A KUBE-NODEPORT-CONTAINER -d 10.20.30.62/32 -p tcp --dport 30080 -j REDIRECT --to-ports 39771"},
		{"a host port", "10.20.30.62:8088", IsHostPort, "port 8088 of kubminion1 is published for pod web-kubminion1, port 8080", "host ports: tcp 8088 -> 8080"},
		{"a pod", "10.10.30.2:0", IsPod, "10.10.30.2 is pod web-kubminion3 on kubminion3", "shares its namespace: pause (pid 7), web8080 (pid 8)"},
		{"a dead pod", "10.10.10.7:0", IsDeadPod, "10.10.10.7 was pod old on kubminion1, which is gone", "node: kubminion1"},
		{"a dead pod with a stale lease", "10.10.10.8:0", IsDeadPod, "10.10.10.8 was leased to default/older, which is gone", "l3ctl ipam release"},
		{"nobody's pod address", "10.10.30.99:0", IsFree, "10.10.30.99 is of the pods of kubminion3 (10.10.30.0/24), and no pod has it now", "node: kubminion3"},
		{"nobody's service address", "10.100.1.1:0", IsFree, "10.100.1.1 is of the portal net 10.100.0.0/16, and no service has it (on that port)", "refuse"},
		{"a service, another port", "10.100.87.105:81", IsFree, "(on that port)", "refuse"},
		{"a node", "192.168.10.64:0", IsHost, "192.168.10.64 is ens18 of kubminion3", "pods: 10.10.30.0/24"},
		{"a bridge", "10.10.10.1:0", IsHost, "10.10.10.1 is docker0 of kubminion1", "it is the gateway of the node's pods"},
		{"the world", "8.8.8.8:0", IsUnknown, "8.8.8.8 is nothing of ours", ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			p := at(row.address)
			got := Whois(w, p.Addr(), p.Port())
			if len(got) != 1 || got[0].Kind != row.kind || !strings.Contains(got[0].Title, row.title) || !strings.Contains(strings.Join(got[0].Facts, "\n"), row.fact) {
				t.Errorf("got %+v", got)
			}
		})
	}
	routes := strings.Join(Whois(w, addr("10.10.30.2"), 0)[0].Routes, "\n")
	if want := "kubminion1: default via 10.20.30.1 dev ens18\nmls: 10.10.30.0/24 via 192.168.10.64 dev br192"; routes != want {
		t.Errorf("routes %q, want %q", routes, want)
	}
}
