// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/view"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

// healthy is kubminion1 with one pod, as it should be.
func healthy() view.Host {
	veth := attach.PortName("web", "eth0")
	return view.Host{
		Name: "kubminion1",
		Node: &node.Node{Name: "kubminion1", PodSubnets: []netip.Prefix{prefix("10.10.10.0/24")}, ClusterPrefixes: []netip.Prefix{prefix("10.10.0.0/16")}, Uplink: "ens18"},
		Routed: view.Routed{
			Version: "1", Sessions: []view.Session{{Peer: "mls", Address: addr("10.20.30.1"), State: "established", In: 3, Out: 1}},
			Routes:    []view.RoutedRoute{{Prefix: prefix("10.10.20.0/24"), Via: []netip.Addr{addr("10.20.30.63")}}},
			Announced: []view.Announced{{Prefix: prefix("10.10.10.0/24"), Why: "pod subnet"}},
		},
		Portald: view.Portald{Version: "1", Mode: "nftables", Synced: true, Portals: []view.Portal{{
			VIP: addr("10.100.87.105"), Protocol: "TCP", Port: 80, Service: "default/webfrontend", Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.10.10.2:8080")}, Mode: "nftables",
		}}},
		Networks: []view.Network{{Name: "l3edge", Plugins: []string{"bridge-l3", "portal"}, Bridge: "docker0"}},
		Links: []view.Link{
			{Name: "ens18", Up: true, Addrs: []netip.Prefix{prefix("10.20.30.62/24")}}, {Name: "docker0", Kind: "bridge", Up: true, Addrs: []netip.Prefix{prefix("10.10.10.1/24")}},
			{Name: veth, Master: "docker0", Up: true},
		},
		Routes:   []view.Route{{Dst: prefix("10.10.20.0/24"), Via: addr("10.20.30.63"), Dev: "ens18", Protocol: 103}},
		Settings: map[string]string{"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"},
		Pods: []view.Pod{{
			Name: "default/web", Container: "web", IfName: "eth0", Network: "l3edge", Netns: "/run/netns/web", Alive: true, Veth: veth, Bridge: "docker0",
			Addrs: []netip.Addr{addr("10.10.10.2")}, Gateways: []netip.Addr{addr("10.10.10.1")},
			Want: view.Side{Addrs: []netip.Prefix{prefix("10.10.10.2/24")}, Routes: []view.Route{{Dst: prefix("0.0.0.0/0"), Via: addr("10.10.10.1")}}},
			Have: &view.Side{MAC: "0a:58:0a:0a:0a:02", Addrs: []netip.Prefix{prefix("10.10.10.2/24")}, Routes: []view.Route{{Dst: prefix("0.0.0.0/0"), Via: addr("10.10.10.1")}}},
		}},
		Leases: []view.Lease{{Network: "l3edge", Addr: addr("10.10.10.2"), Container: "web", IfName: "eth0", Pod: "default/web"}},
		Tables: []string{"ip l3edge"},
	}
}

func TestAHealthyHostHasNoFinding(t *testing.T) {
	if fs := Host(healthy()); len(fs) > 0 {
		t.Errorf("found %v", fs)
	}
	if fs := Host(view.Host{Routed: view.Routed{Problem: "x"}, Portald: view.Portald{Problem: "x"}}); len(fs) != 1 || Healthy(fs) {
		t.Errorf("a host without l3edge: %v", fs)
	}
}

// A pod that the reference chain made, and that still runs, has its rules by right.
func TestRulesOfReferencePluginsAreRightWhileTheirContainersAreThere(t *testing.T) {
	h := healthy()
	h.Others = []view.Rule{{Table: "iptables nat", Chain: "CNI-DN-1", Network: "l3edge", Container: "web", Text: "-A CNI-HOSTPORT-DNAT -j CNI-DN-1"}}
	if fs := Host(h); len(fs) > 0 {
		t.Errorf("found %v", fs)
	}
	h.Others[0].Container = "gone"
	if fs := Host(h); len(fs) != 1 || fs[0].Fix != "iptables -t nat -D CNI-HOSTPORT-DNAT -j CNI-DN-1; iptables -t nat -F CNI-DN-1; iptables -t nat -X CNI-DN-1" {
		t.Errorf("found %+v", fs)
	}
	h.Others[0] = view.Rule{Table: "nft ip cni_hostport", Chain: "hostports", Container: "gone", Handle: 7}
	if fs := Host(h); len(fs) != 1 || fs[0].Fix != "if no other runtime has that container: nft delete rule ip cni_hostport hostports handle 7" {
		t.Errorf("found %+v", fs)
	}
}

// From inside a container the runtime's files and the pods are out of sight, which is no fault of the node's.
func TestAPartialViewHasNoFalseFindings(t *testing.T) {
	h := healthy()
	h.Partial, h.Pods, h.Networks = "seen from a container", nil, nil
	if fs := Host(h); len(fs) > 0 {
		t.Errorf("without networks: found %v", fs)
	}
	h.Networks = []view.Network{{Name: "l3edge", Plugins: []string{"bridge-l3"}, Bridge: "docker0"}}
	if fs := Host(h); len(fs) > 0 {
		t.Errorf("found %v", fs)
	}
	h.Routed.Sessions[0].State = "connecting"
	if fs := Host(h); len(fs) != 1 {
		t.Errorf("a session down: found %v", fs)
	}
	if fs := Host(view.Host{Name: "n2", Lost: "pod x is Pending"}); len(fs) != 1 || Healthy(fs) || !Ours(view.Host{Lost: "x"}) {
		t.Errorf("a node that does not answer: %v", fs)
	}
}

// The setting that opens 127.0.0.1 is right while its guard is there, and portal's to mend while a pod has host ports.
func TestLocalhostMayBeOpen(t *testing.T) {
	for what, harmless := range map[string]func(h *view.Host){
		"with its guard":            func(h *view.Host) { h.Tables = append(h.Tables, "ip l3edge_hostports") },
		"for a pod with host ports": func(h *view.Host) { h.Pods[0].HostPorts = []view.HostPort{{Protocol: "tcp", Port: 80, To: 8080}} },
	} {
		h := healthy()
		h.Settings["net/ipv4/conf/docker0/route_localnet"] = "1"
		harmless(&h)
		if fs := Host(h); len(fs) > 0 {
			t.Errorf("%s: found %v", what, fs)
		}
	}
}

func TestHost(t *testing.T) {
	for _, row := range []struct {
		what    string
		harm    func(h *view.Host)
		want    string // of the only finding
		repair  Op
		warning bool
	}{
		{"a veth off its bridge", func(h *view.Host) { h.Links[2].Master = "" }, "is no port of a bridge, want docker0", JoinBridge, false},
		{"a port without hairpin", func(h *view.Host) { h.Pods[0].Port = &view.Port{Hairpin: true} }, "has hairpin false and isolation false, want true and false", JoinBridge, false},
		{"a veth down", func(h *view.Host) { h.Links[2].Up = false }, "is down", LinkUp, false},
		{"a source check flushed", func(h *view.Host) { h.Pods[0].Unbound = "nothing of it is there" }, "is not bound to its addresses: nothing of it is there", BindPort, false},
		{"a veth deleted", func(h *view.Host) { h.Links = h.Links[:2] }, "has gone", "", false},
		{"no gateway on the bridge", func(h *view.Host) { h.Links[1].Addrs = nil }, "its gateway 10.10.10.1 is not on docker0", AddAddress, false},
		{"no bridge", func(h *view.Host) { h.Links[1].Name = "x" }, "its bridge docker0 has gone", "", false},
		{"a bridge down", func(h *view.Host) { h.Links[1].Up = false }, "its bridge docker0 is down", LinkUp, false},
		{"no address in the pod", func(h *view.Host) { h.Pods[0].Have.Addrs = nil }, "its address 10.10.10.2 is not on eth0", AddAddress, false},
		{"no route in the pod", func(h *view.Host) { h.Pods[0].Have.Routes = nil }, "its route default via 10.10.10.1 is missing", AddRoute, false},
		{"no eth0 in the pod", func(h *view.Host) { h.Pods[0].Have = &view.Side{} }, "eth0 has gone", "", false},
		{"forwarding off", func(h *view.Host) { h.Settings["net/ipv4/ip_forward"] = "0" }, "net/ipv4/ip_forward is 0", SetSetting, false},
		{"127.0.0.1 open to pods", func(h *view.Host) {
			h.Settings["net/ipv4/conf/docker0/route_localnet"] = "1"
			h.Networks = append(h.Networks, h.Networks[0])
		}, "pods reach what listens on 127.0.0.1 of this node", SetSetting, false},
		{"no br_netfilter", func(h *view.Host) { delete(h.Settings, "net/bridge/bridge-nf-call-iptables") }, "does not have net/bridge", "", true},
		{"a route deleted", func(h *view.Host) { h.Routes = nil }, "10.10.20.0/24 has gone from the kernel", AddRoute, false},
		{"a route refused", func(h *view.Host) { h.Routed.Routes[0].Failed = true }, "is not in the kernel", "", false},
		{"a ruleset flushed", func(h *view.Host) { h.Tables = nil }, "the nftables table ip l3edge has gone", "", false},
		{"iptables flushed", func(h *view.Host) { h.Portald.Mode = "userspace" }, "the iptables chain KUBE-PORTALS-CONTAINER has gone", "", false},
		{"a jump deleted", func(h *view.Host) {
			h.Portald.Mode, h.Chains = "userspace", []string{"KUBE-PORTALS-CONTAINER: 3 rules, but nothing leads to it", "KUBE-PORTALS-HOST: 3 rules, led to by OUTPUT"}
		}, "nothing leads to it", "", false},
		{"a chain emptied", func(h *view.Host) {
			h.Portald.Mode, h.Chains = "userspace", []string{"KUBE-PORTALS-CONTAINER: 0 rules, led to by PREROUTING", "KUBE-PORTALS-HOST: 3 rules, led to by OUTPUT"}
		}, "0 rules", "", false},
		{"a stale lease", func(h *view.Host) {
			h.Leases = append(h.Leases, view.Lease{Network: "l3edge", Addr: addr("10.10.10.9"), Container: "gone", IfName: "eth0"})
		}, "its container has no interface on this node any more", ReleaseLease, true},
		{"an address that host-local holds for a container that is gone", func(h *view.Host) {
			h.Leases = append(h.Leases, view.Lease{Network: "l3edge", Addr: addr("10.10.10.9"), Container: "gone", IfName: "eth0", HostLocal: "/x/l3edge/10.10.10.9"})
		}, "its container, which had it from host-local, is not on this node any more", ReleaseLease, true},
		{"the same under another network's name", func(h *view.Host) {
			h.Leases = append(h.Leases, view.Lease{Network: "l3edge", Addr: addr("10.10.10.9"), Container: "gone", IfName: "eth0", HostLocal: "/x/podman/10.10.10.9"})
		}, "its container, which had it from host-local, is not on this node any more", "", true},
		{"a file of host-local that a crash left empty", func(h *view.Host) {
			h.Leases = append(h.Leases, view.Lease{Network: "l3edge", Addr: addr("10.10.10.9"), HostLocal: "/x/10.10.10.9"})
		}, "its file names no container", "", true},
		{"a host port of portmap whose container is gone", func(h *view.Host) {
			h.Others = []view.Rule{{Table: "iptables nat", Chain: "CNI-DN-1", Network: "l3edge", Container: "gone", Text: "-A CNI-HOSTPORT-DNAT -j CNI-DN-1"}}
		}, "iptables nat: a rule of the reference plugins leads to chain CNI-DN-1 for container gone of network l3edge, which is not on this node any more", "", false},
		{"the same of a network that is not ours", func(h *view.Host) {
			h.Others = []view.Rule{{Table: "nft ip cni_hostport", Chain: "hostports", Container: "gone", Text: "tcp dport 80", Handle: 7}}
		}, "nft ip cni_hostport: a rule of the reference plugins in chain hostports for container gone", "", true},
		{"an address without a lease", func(h *view.Host) { h.Leases = nil }, "no lease holds it", "", false},
		{"a session down", func(h *view.Host) { h.Routed.Sessions[0].State = "connecting" }, "the session with mls is connecting", "", false},
		{"routed waiting", func(h *view.Host) { h.Routed.Waiting = "no pod subnet" }, "waits: no pod subnet", "", false},
		{"routed dead", func(h *view.Host) { h.Routed.Problem = "does not run" }, "does not run", "", false},
		{"portald dead, its rules there", func(h *view.Host) { h.Portald = view.Portald{Problem: "does not run"} }, "does not run", "", true},
		{"portald behind", func(h *view.Host) { h.Portald.Synced = false }, "is not in force", "", false},
		{"a prefix held back", func(h *view.Host) {
			h.Routed.Held = []view.Announced{{Prefix: prefix("10.100.0.0/16"), Why: "portal net", Lacks: "drained"}}
		}, "10.100.0.0/16 (portal net) is not announced", "", false},
		{"a service without endpoints", func(h *view.Host) { h.Portald.Portals[0].Endpoints = nil }, "webfrontend TCP 10.100.87.105:80 has no endpoint", "", true},
		{"an upgrade half done", func(h *view.Host) { h.Portald.Version = "2" }, "routed is 1, portald is 2", "", true},
		{"no configuration list", func(h *view.Host) { h.Networks, h.Pods, h.Leases = nil, nil, nil }, "names bridge-l3", "", false},
	} {
		t.Run(row.what, func(t *testing.T) {
			h := healthy()
			row.harm(&h)
			fs := Host(h)
			if len(fs) != 1 {
				t.Fatalf("found %d: %v", len(fs), fs)
			}
			f := fs[0]
			if !strings.Contains(f.Problem, row.want) || f.Warning != row.warning || f.Fix == "" {
				t.Errorf("got %+v\nwant %q", f, row.want)
			}
			if op := opOf(f); op != row.repair {
				t.Errorf("repair %q, want %q", op, row.repair)
			}
		})
	}
}

func opOf(f Finding) Op {
	if f.Repair == nil {
		return ""
	}
	return f.Repair.Op
}

func TestAFullSubnetIsBroken(t *testing.T) {
	h := healthy()
	h.Networks[0].Subnets = []netip.Prefix{prefix("10.10.10.0/30")}
	fs := Host(h)
	if len(fs) != 1 || fs[0].Warning || !strings.Contains(fs[0].Problem, "1 of 1 addresses in use") {
		t.Errorf("got %+v", fs)
	}
}

func TestSwitch(t *testing.T) {
	mls := view.Host{Name: "mls", Routes: []view.Route{
		{Dst: prefix("10.10.10.0/24"), Via: addr("10.20.30.62"), Dev: "br20", Protocol: 186},
	}}
	both := func() []view.Host {
		a, b := healthy(), healthy()
		b.Name, b.Routed.Announced = "kubminion2", nil
		return []view.Host{a, b}
	}
	for _, row := range []struct {
		what string
		harm func(nodes []view.Host, mls *view.Host)
		want []string
	}{
		{"all is well", func([]view.Host, *view.Host) {}, nil},
		{"a static route left on the switch", func(_ []view.Host, m *view.Host) { m.Routes[0].Protocol = 4 }, []string{"a static route is left: 10.10.10.0/24 via 10.20.30.62 dev br20"}},
		{"a static route left on a node", func(n []view.Host, _ *view.Host) {
			n[1].Routes = append(n[1].Routes, view.Route{Dst: prefix("10.10.30.0/24"), Via: addr("10.20.30.1"), Dev: "ens18", Protocol: 3})
		}, []string{"a static route is left: 10.10.30.0/24 via 10.20.30.1 dev ens18"}},
		{"an inbound policy that refuses", func(_ []view.Host, m *view.Host) { m.Routes = nil }, []string{"it has no route to 10.10.10.0/24, which kubminion1 announces"}},
		{"an outbound policy that refuses", func(n []view.Host, _ *view.Host) { n[0].Routed.Sessions[0].In = 0 }, []string{"mls announces nothing"}},
		{"multipath off", func(n []view.Host, m *view.Host) {
			for i := range n {
				n[i].Routed.Announced = append(n[i].Routed.Announced, view.Announced{Prefix: prefix("10.100.0.0/16")})
			}
			m.Routes = append(m.Routes, view.Route{Dst: prefix("10.100.0.0/16"), Via: addr("10.20.30.62"), Dev: "br20", Protocol: 186})
		}, []string{"it uses 1 of the 2 ways to 10.100.0.0/16"}},
		{"timers that differ", func(n []view.Host, _ *view.Host) {
			s := n[0].Routed.Sessions[0]
			s.HoldTime, n[0].Routed.Sessions[0].HoldTime = 180, 9
			n[0].Routed.Sessions = append(n[0].Routed.Sessions, s)
		}, []string{"hold times differ: 9s and 180s"}},
	} {
		t.Run(row.what, func(t *testing.T) {
			nodes, m := both(), mls
			m.Routes = append([]view.Route{}, mls.Routes...)
			row.harm(nodes, &m)
			var got []string
			for _, f := range Switch(nodes, &m) {
				got = append(got, f.Problem)
			}
			if strings.Join(got, "\n") != strings.Join(row.want, "\n") {
				t.Errorf("got %q\nwant %q", got, row.want)
			}
		})
	}
}
