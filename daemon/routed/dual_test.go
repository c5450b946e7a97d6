// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// routers6 are the switches of a network with both address families, which is spoken with over IPv6 or over IPv4.
var routers6 = []struct {
	name  string
	start func(*testing.T, *host)
	third bool // it tells nodes on one segment to reach each other directly
}{
	{"embedded", func(t *testing.T, mls *host) {
		mls.routed(t, "--asn=64512", "--accept=10.10.0.0/16", "--accept=fd10:10::/48", "--listen-range=10.20.30.0/24", "--listen-range=fd00:20:30::/64", "--listen-range=fd00:192::/64")
	}, false},
	{"bird", func(t *testing.T, mls *host) {
		runBird(t, mls, `router id 10.20.30.1;
protocol device { }
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; import none; }; }
template bgp nodes { local as 64512; graceful restart on;
  ipv4 { import all; export where source = RTS_BGP; extended next hop on; };
  ipv6 { import all; export where source = RTS_BGP; }; }
protocol bgp a from nodes { neighbor range fd00:20:30::/64 external; }
protocol bgp b from nodes { neighbor range fd00:192::/64 external; }
protocol bgp c from nodes { neighbor range 10.20.30.0/24 external; ipv6 { next hop address fd00:20:30::1; }; }
`)
	}, true},
	{"frr", func(t *testing.T, mls *host) {
		runFRR(t, mls, `hostname mls
router bgp 64512
 bgp router-id 10.20.30.1
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as external
 neighbor NODES capability extended-nexthop
 bgp listen range fd00:20:30::/64 peer-group NODES
 bgp listen range fd00:192::/64 peer-group NODES
 bgp listen range 10.20.30.0/24 peer-group NODES
 bgp graceful-restart
 address-family ipv6 unicast
  neighbor NODES activate
 exit-address-family
`)
	}, true},
}

// dual gives the lab IPv6 beside IPv4. Its segments fd00:20:30::/64 and fd00:192::/64 have the switch as ::1.
func (l lab) dual(t *testing.T) {
	t.Helper()
	l.mls.sh(t, `ip addr add fd00:20:30::1/64 dev vlan30 nodad; ip addr add fd00:192::1/64 dev p3 nodad
		echo 1 >/proc/sys/net/ipv6/conf/all/forwarding`)
	for i, n := range []*host{l.n1, l.n2, l.n3} {
		addr, gw := fmt.Sprintf("fd00:20:30::6%d/64", i+2), "fd00:20:30::1"
		if n == l.n3 {
			addr, gw = "fd00:192::64/64", "fd00:192::1"
		}
		n.sh(t, fmt.Sprintf("ip addr add %s dev ens18 nodad; ip route add default via %s; ip addr add fd10:10:0:%d0::1/64 dev docker0 nodad", addr, gw, i+1))
	}
}

func (l lab) startDual(t *testing.T, n *host, peer string) {
	t.Helper()
	i := map[*host]int{l.n1: 1, l.n2: 2, l.n3: 3}[n]
	n.routed(t, "--peer="+peer, fmt.Sprintf("--pod-subnet=10.10.%d0.0/24", i), fmt.Sprintf("--pod-subnet=fd10:10:0:%d0::/64", i))
}

func TestDualStack(t *testing.T) {
	for _, r := range routers6 {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			l.dual(t)
			r.start(t, l.mls)
			l.startDual(t, l.n1, "fd00:20:30::1")
			l.startDual(t, l.n2, "10.20.30.1")
			l.startDual(t, l.n3, "fd00:192::1")
			took := within(t, 5*time.Second, "routes of both families everywhere", func() bool {
				return l.mls.has(t, "10.10.10.0/24 via inet6 fd00:20:30::62", "fd10:10:0:10::/64 via fd00:20:30::62", "fd10:10:0:20::/64 via fd00:20:30::63", "fd10:10:0:30::/64 via fd00:192::64") &&
					l.n1.has(t, "10.10.30.0/24 via inet6 fd00:20:30::1", "fd10:10:0:30::/64 via fd00:20:30::1", "10.10.20.0/24", "fd10:10:0:20::/64") &&
					l.n2.has(t, "10.10.10.0/24", "fd10:10:0:30::/64 via fd00:20:30::1", "fd10:10:0:10::/64") &&
					l.n3.has(t, "10.10.10.0/24 via inet6 fd00:192::1", "fd10:10:0:10::/64 via fd00:192::1")
			})
			t.Logf("after %s", took)
			reach(t, l.n1, "fd10:10:0:10::1", l.n3, "fd10:10:0:30::1")
			reach(t, l.n1, "10.10.10.1", l.n3, "10.10.30.1")
			within(t, 5*time.Second, "End-of-RIB of both families", func() bool { return l.n1.status(t).Sessions[0].Synced && l.n2.status(t).Sessions[0].Synced })
		})
	}
}

func TestIPv6Only(t *testing.T) {
	mls, n := newHost(t, "mls"), newHost(t, "kubminion1")
	nstest.Veth(t, mls.Handle, "p1", "", n.Handle, "ens18", "")
	mls.sh(t, "ip addr add fd00:20:30::1/64 dev p1 nodad")
	n.sh(t, "ip addr add fd00:20:30::62/64 dev ens18 nodad")
	mls.routed(t, "--asn=64512", "--accept=fd10:10::/48", "--listen-range=fd00:20:30::/64")
	n.routed(t, "--peer=fd00:20:30::1", "--pod-subnet=fd10:10:0:10::/64")
	within(t, promised, "route", func() bool { return mls.has(t, "fd10:10:0:10::/64 via fd00:20:30::62") })
	if st := n.status(t); st.RouterID.String() != "0.0.0.98" || st.ASN != 4200000098 {
		t.Errorf("router ID %s, ASN %d", st.RouterID, st.ASN)
	}
}

// unnumbered wires a node to the switch without addresses. Only its pods have some.
func unnumbered(t *testing.T, mls, n *host, port string, i int) {
	t.Helper()
	nstest.Veth(t, mls.Handle, port, "", n.Handle, "ens18", "")
	mls.sh(t, "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	n.sh(t, fmt.Sprintf("ip link add docker0 type bridge; ip addr add 10.10.%d0.1/24 dev docker0; ip addr add fd10:10:0:%d0::1/64 dev docker0 nodad; ip link set docker0 up", i, i))
}

// TestUnnumbered has no address on the link but those that it has by itself.
func TestUnnumbered(t *testing.T) {
	for _, r := range []struct {
		name  string
		start func(*testing.T, *host)
	}{
		{"embedded", func(t *testing.T, mls *host) {
			conf := mls.dir + "/routed.yaml"
			write(t, conf, "asn: 64512\nrouterID: 10.20.30.1\ntransit: true\npeers: [{interface: p1}, {interface: p2}]\naccept: [10.10.0.0/16, 'fd10:10::/48']\n")
			mls.routed(t, "--conf="+conf)
		}},
		{"frr", func(t *testing.T, mls *host) {
			runFRR(t, mls, `hostname mls
router bgp 64512
 bgp router-id 10.20.30.1
 no bgp ebgp-requires-policy
 neighbor p1 interface remote-as external
 neighbor p2 interface remote-as external
 bgp graceful-restart
 address-family ipv6 unicast
  neighbor p1 activate
  neighbor p2 activate
 exit-address-family
`)
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			mls, n1, n2 := newHost(t, "mls"), newHost(t, "kubminion1"), newHost(t, "kubminion2")
			unnumbered(t, mls, n1, "p1", 1)
			unnumbered(t, mls, n2, "p2", 2)
			r.start(t, mls)
			n1.routed(t, "--peer=ens18", "--pod-subnet=10.10.10.0/24", "--pod-subnet=fd10:10:0:10::/64")
			n2.routed(t, "--peer=ens18,interface", "--pod-subnet=10.10.20.0/24", "--pod-subnet=fd10:10:0:20::/64")
			took := within(t, 15*time.Second, "routes of both families everywhere", func() bool {
				have := n1.routes(t)
				return mls.has(t, "10.10.10.0/24", "fd10:10:0:10::/64", "10.10.20.0/24", "fd10:10:0:20::/64") && n2.has(t, "10.10.10.0/24", "fd10:10:0:10::/64") &&
					strings.Contains(have, "10.10.20.0/24 via inet6 fe80::") && strings.Contains(have, "fd10:10:0:20::/64 via fe80::")
			})
			t.Logf("after %s", took)
			reach(t, n1, "10.10.10.1", n2, "10.10.20.1")
			reach(t, n1, "fd10:10:0:10::1", n2, "fd10:10:0:20::1")
			if p := n1.status(t).Sessions[0]; p.Peer != "ens18" || !strings.HasSuffix(p.Address.String(), "%ens18") {
				t.Errorf("session %+v", p)
			}
		})
	}
}
