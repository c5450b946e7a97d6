// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// other is the same node's other network, with its leases beside the first one's.
func (l *lab) other(name, keys string) *lab {
	o := *l
	o.name, o.keys = name, keys
	return &o
}

// TestAddressesOfHostLocalAreTaken: a node that comes from the reference plugin has its pods still, under today's name or another.
func TestAddressesOfHostLocalAreTaken(t *testing.T) {
	for _, network := range []string{"net", "mynet"} {
		l := newLab(t, subnet4)
		left := l.hostLocals(filepath.Join(l.leases, "../hostlocal", network), map[string]string{"10.10.10.2": "old\r\neth0", "10.10.10.3": "old2\r\neth0"})
		p := l.pod("new")
		if got := addresses(l.add(p)); got != "10.10.10.4/24" {
			t.Errorf("%s: got %s, which is taken", network, got)
		}
		asked := l.pod("asked")
		asked.args = "IP=10.10.10.2"
		l.refused("ADD", asked, 102, "10.10.10.2 is held by container old")
		l.must("DEL", l.pod("old"))
		if left() != "10.10.10.3" {
			t.Errorf("%s: after DEL: %s", network, left())
		}
		l.add(asked)
	}
}

// TestTwoNetworksOnOneSubnet: the node has one way to an address.
func TestTwoNetworksOnOneSubnet(t *testing.T) {
	l := newLab(t, subnet4)
	o := l.other("other", subnet4)
	a, b := l.pod("a"), l.pod("b")
	l.add(a)
	if got := addresses(o.add(b)); got != "10.10.10.3/24" {
		t.Errorf("got %s", got)
	}
	o.refused("ADD", &pod{id: "c", ns: nstest.New(t), args: "IP=10.10.10.2"}, 102, "10.10.10.2 is held by container a")
	o = l.other("third", `"bridge":"br1","subnet":"10.10.10.0/24"`)
	o.refused("ADD", l.pod("d"), 102, "subnet: 10.10.10.0/24 holds 10.10.10.1, which is the node's own on docker0")
	if out := nstest.Run(t, l.node, "ip", "-br", "link"); strings.Contains(out, "br1") {
		t.Errorf("after the refusal:\n%s", out)
	}
	l.hostLocals(filepath.Join(l.leases, "../hostlocal/hl"), map[string]string{"10.10.10.4": "old\r\neth0"})
	o = l.other("unrouted", `"isGateway":false,"bridge":"docker0","subnet":"10.10.10.0/24"`) // host-local's of another name are its own matter
	if got := addresses(o.add(l.pod("e"))); got != "10.10.10.4/24" {
		t.Errorf("got %s", got)
	}
}

// TestALinkOfAnotherNetworkStays: names of ports tell containers and interfaces apart, networks they do not.
func TestALinkOfAnotherNetworkStays(t *testing.T) {
	l := newLab(t, subnet4)
	o := l.other("other", `"bridge":"docker0","subnet":"10.20.0.0/24","isGateway":false`)
	p := l.pod("a")
	l.add(p)
	again := &pod{id: "a", ns: nstest.New(t)}
	o.refused("ADD", again, 102, "container a has an interface eth0 of another network")
	l.must("CHECK", p)
	nstest.Run(t, l.node, "ip", "link", "set", attach.PortName("a", "eth0"), "down")
	o.hostLocals(filepath.Join(l.leases, "other/by-owner"), map[string]string{"a@eth0": `{"containerID":"a","ifname":"eth0"}`}) // an ADD that was killed
	o.refused("ADD", again, 102, "container a has an interface eth0 of another network")
	nstest.Run(t, l.node, "ip", "link", "set", attach.PortName("a", "eth0"), "up")
	again.ns = p.ns
	o.must("DEL", again)
	o.must("GC", &pod{id: "x", extra: `"cni.dev/valid-attachments":[]`})
	l.must("CHECK", p)
	l.must("DEL", p)
	if left := l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestASubnetWithTheNodesOwnAddress: a pod must not get what the node has on its uplink.
func TestASubnetWithTheNodesOwnAddress(t *testing.T) {
	for _, before := range []string{"true", "ip link add docker0 type bridge"} {
		l := newLab(t, subnet4)
		nstest.Veth(t, l.node, "ens18", "10.10.10.2/24", nstest.New(t), "sw", "10.10.10.3/24")
		nstest.Sh(t, l.node, before)
		l.refused("ADD", l.pod("a"), 102, "subnet: 10.10.10.0/24 holds 10.10.10.2, which is the node's own on ens18")
		if out := nstest.Run(t, l.node, "ip", "-br", "addr"); strings.Contains(out, "10.10.10.1/") || l.left() != "" {
			t.Errorf("left: %s\n%s", l.left(), out)
		}
	}
	l := newLab(t, subnet4) // a wider one of the uplink is another matter: the longest prefix counts
	nstest.Veth(t, l.node, "ens18", "10.0.0.2/8", nstest.New(t), "sw", "10.0.0.3/8")
	l.add(l.pod("a"))
}

// TestTheNodesOwnAddressThatNoPodCanGet is no obstacle: an overlay's interface has the network address of the pod subnet, and
// a range may leave the uplink's address out.
func TestTheNodesOwnAddressThatNoPodCanGet(t *testing.T) {
	const ranged = `"bridge":"docker0","ranges":[[{"subnet":"10.1.0.0/16","rangeStart":"10.1.200.1","rangeEnd":"10.1.200.250","gateway":"10.1.200.254"}]]`
	for _, row := range []struct{ name, keys, own, why string }{
		{"an overlay's", subnet4, "10.10.10.0/32", ""},
		{"the broadcast address", subnet4, "10.10.10.255/32", ""},
		{"outside of the range", ranged, "10.1.2.3/24", ""},
		{"inside of the range", ranged, "10.1.200.7/24", "10.1.0.0/16 holds 10.1.200.7, which is the node's own on ens18"},
		{"the gateway's", ranged, "10.1.200.254/24", "10.1.0.0/16 holds 10.1.200.254, which is the node's own on ens18"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t, row.keys)
			nstest.Veth(t, l.node, "ens18", row.own, nstest.New(t), "sw", "192.0.2.3/24")
			if row.why != "" {
				l.refused("ADD", l.pod("a"), 102, row.why)
				return
			}
			l.add(l.pod("a"))
		})
	}
}

func TestTheGatewayWithAnotherLengthStays(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","ipam":{"dataDir":"LEASES","ranges":[[{"subnet":"10.3.0.0/16","rangeStart":"10.3.7.7"}]]}`)
	l.keys = strings.ReplaceAll(l.keys, "LEASES", l.leases)
	a := l.pod("a")
	l.add(a)
	l.keys = strings.ReplaceAll(l.keys, `"10.3.0.0/16","rangeStart":"10.3.7.7"`, `"10.3.0.0/24"`)
	for range 2 {
		l.refused("ADD", l.pod("b"), 102, "bridge docker0 has address 10.3.0.1/16, this network wants 10.3.0.1/24")
	}
	if out := nstest.Run(t, l.node, "ip", "-br", "-4", "addr", "show", "docker0"); !strings.Contains(out, "10.3.0.1/16") || strings.Contains(out, "/24") {
		t.Errorf("docker0: %s", out)
	}
}

// TestABridgeThatIsNoGatewayTakesNoRoutes from its pods either.
func TestABridgeThatIsNoGatewayTakesNoRoutes(t *testing.T) {
	for _, keys := range []string{`"isGateway":false,"bridge":"docker0","subnet":"10.10.10.0/24"`, `"bridge":"docker0","ipam":{}`} {
		l := newLab(t, keys)
		nstest.Sh(t, l.node, "echo 2 >/proc/sys/net/ipv6/conf/default/accept_ra; ip link add docker0 type bridge")
		p := l.pod("a")
		l.add(p)
		if out := nstest.Sh(t, l.node, "cat /proc/sys/net/ipv6/conf/docker0/accept_ra"); out != "0\n" {
			t.Errorf("%s: accept_ra is %s", keys, out)
		}
		l.must("CHECK", p)
		nstest.Sh(t, l.node, "echo 1 >/proc/sys/net/ipv6/conf/docker0/accept_ra")
		l.refused("CHECK", p, 100, "net/ipv6/conf/docker0/accept_ra is 1, want 0")
		l.must("DEL", p)
	}
}

// TestABridgeTakesNoRoutesFromTheMomentItIsUp: this ADD is refused behind that.
func TestABridgeTakesNoRoutesFromTheMomentItIsUp(t *testing.T) {
	l := newLab(t, subnet4)
	nstest.Sh(t, l.node, "echo 2 >/proc/sys/net/ipv6/conf/default/accept_ra; ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0")
	l.refused("ADD", l.pod("a"), 102, "bridge docker0 has address 172.17.0.1/16")
	if out := nstest.Sh(t, l.node, "cat /proc/sys/net/ipv6/conf/docker0/accept_ra"); out != "0\n" {
		t.Errorf("accept_ra is %s", out)
	}
}

func TestCheckAndStatusSeeABridgeThatDoesNotServe(t *testing.T) {
	l := newLab(t, subnet4)
	p := l.pod("a")
	l.add(p)
	const forwarding = "/proc/sys/net/ipv4/conf/docker0/forwarding"
	for _, row := range []struct{ spoil, mend, check, status string }{
		{"echo 0 >" + forwarding, "echo 1 >" + forwarding, "net/ipv4/conf/docker0/forwarding is 0", "net/ipv4/conf/docker0/forwarding is 0"},
		{"bridge link set dev " + attach.PortName("a", "eth0") + " state 0", "bridge link set dev " + attach.PortName("a", "eth0") + " state 3", "the bridge forwards nothing by it", ""},
		{"ip link set docker0 down", "ip link set docker0 up", "bridge docker0: is gone", "bridge docker0 is down"},
		{"ip addr del 10.10.10.1/24 dev docker0", "ip addr add 10.10.10.1/24 dev docker0", "address 10.10.10.1/24 is missing", "docker0 has lost the gateway address 10.10.10.1"},
	} {
		nstest.Sh(t, l.node, row.spoil)
		l.refused("CHECK", p, 100, row.check)
		if row.status != "" {
			l.refused("STATUS", p, 51, row.status)
		}
		nstest.Sh(t, l.node, row.mend)
		l.must("STATUS", p)
	}
	l.must("CHECK", p)
}

// TestTheMTUBeforeThereIsADefaultRoute: what installs it may come after the first pod.
func TestTheMTUBeforeThereIsADefaultRoute(t *testing.T) {
	l := newLab(t, subnet4)
	nstest.Veth(t, l.node, "ens18", "192.0.2.1/24", nstest.New(t), "sw", "192.0.2.2/24")
	nstest.Sh(t, l.node, "ip link set ens18 mtu 1400; ip link add br1 mtu 1300 type bridge; ip link set br1 up")
	if mtu := l.add(l.pod("a")).Interfaces[0].MTU; mtu != 1400 {
		t.Errorf("MTU is %d", mtu)
	}
}

func TestAnMTUThatIPv6CannotUse(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","mtu":1000,"subnet":"fd00:10::/64"`)
	p := l.pod("a")
	l.refused("ADD", p, 7, "mtu: 1000 is less than the 1280 that IPv6 needs")
	if out := nstest.Run(t, l.node, "ip", "-br", "link"); strings.Contains(out, "docker0") {
		t.Errorf("after the refusal:\n%s", out)
	}
	l.keys = `"bridge":"docker0","subnet":"fd00:10::/64"`
	nstest.Run(t, l.node, "ip", "link", "add", "docker0", "mtu", "1000", "type", "bridge")
	l.refused("ADD", p, 7, "mtu: 1000 is less than the 1280 that IPv6 needs")
}

func TestTwoAddressesOfOneSubnet(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.19"}],[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.20"}]]`)
	p := l.pod("a")
	if got := addresses(l.add(p)); got != "10.0.0.2/24 10.0.0.20/24" {
		t.Errorf("got %s", got)
	}
	l.must("CHECK", p)
}

func TestLongContainerIDs(t *testing.T) {
	l := newLab(t, subnet4)
	for _, n := range []int{238, 239, 250} { // an alias of 254 letters, of more, the longest id
		p := l.pod(strings.Repeat("f", n))
		l.add(p)
		l.must("CHECK", p)
		l.must("DEL", p)
	}
	p := l.pod(strings.Repeat("f", 251))
	l.refused("ADD", p, 4, "CNI_CONTAINERID: ")
	p.args = "what;ever"
	l.must("DEL", p)
	if left := l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestAPortWithAnotherAlias: somebody has changed it, or the network's name is too long for it; the lease tells whose it is.
func TestAPortWithAnotherAlias(t *testing.T) {
	for _, verb := range []string{"DEL", "GC"} {
		l := newLab(t, subnet4)
		p := l.pod("a")
		l.add(p)
		nstest.Run(t, l.node, "ip", "link", "set", attach.PortName("a", "eth0"), "alias", "the web server's")
		end := &pod{id: "a", ns: p.ns}
		if verb == "GC" {
			end = &pod{id: "x", extra: `"cni.dev/valid-attachments":[]`}
		}
		l.must(verb, end)
		if left := l.left(); left != "" {
			t.Errorf("left by %s: %s", verb, left)
		}
	}
	l := newLab(t, subnet4).other(strings.Repeat("n", 250), subnet4)
	p := l.pod("a")
	l.add(p)
	l.must("DEL", p)
	if left := l.left(); left != "" {
		t.Errorf("left of a network with a long name: %s", left)
	}
}
