// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

// TestVLANs: where the kernel's bridges know VLANs, pods are in theirs and the gateway is too; where they do not, ADD says
// so with the key, and has changed nothing.
func TestVLANs(t *testing.T) {
	l := newLab(t, subnet4+`,"vlan":5`)
	p := l.pod("a")
	if !bridgesKnowVLANs(t) {
		l.refused("ADD", p, 2, "vlan: 5: this kernel's bridges know no VLANs")
		if out := nstest.Run(t, l.node, "ip", "-br", "link"); strings.Contains(out, "docker0") || l.left() != "" {
			t.Errorf("after the refusal: %s\n%s", l.left(), out)
		}
		plain := newLab(t, subnet4)
		other := plain.pod("other")
		plain.add(other)
		plain.keys = `"bridge":"docker0","subnet":"10.10.20.0/24","vlanTrunk":[{"id":7},{"minID":10,"maxID":11}]`
		plain.refused("ADD", plain.pod("b"), 2, "vlanTrunk: [7 10 11]: this kernel's bridges know no VLANs")
		plain.refused("STATUS", other, 50, "vlan: this kernel's bridges know no VLANs")
		plain.must("DEL", p)
		plain.keys = subnet4
		plain.must("CHECK", other)
		return
	}
	l.keys += `,"vlanTrunk":[{"minID":10,"maxID":12}]`
	r := l.add(p)
	port, leg := r.Interfaces[1].Name, r.Interfaces[3].Name
	if leg != "docker0.5" || r.Interfaces[3].Sandbox != "" {
		t.Errorf("the gateway's interface: %+v", r.Interfaces)
	}
	if got := vlansOf(t, l.node, port); got != "5 PVID Egress Untagged; 10; 11; 12" {
		t.Errorf("VLANs of the pod's port: %s", got)
	}
	reach(t, p.ns, l.node, "10.10.10.1")
	l.must("CHECK", p)
	l.must("STATUS", p)
	other := newLab(t, `"bridge":"docker0","subnet":"10.10.10.0/24","vlan":6,"isGateway":false,"runtimeConfig":{"ips":["10.10.10.9"]}`)
	other.node = l.node
	b := other.pod("b")
	other.add(b)
	var lis net.Listener
	nstest.Do(t, b.ns, func() (err error) { lis, err = net.Listen("tcp", "10.10.10.9:0"); return err })
	defer lis.Close() //nolint:errcheck // a test
	if connects(t, p.ns, "", lis.Addr().String()) {
		t.Error("a pod of VLAN 5 reaches one of VLAN 6 over the bridge")
	}
	for _, row := range []struct{ name, break_, mend, want string }{
		{"a VLAN more", "bridge vlan add dev " + port + " vid 9", "bridge vlan del dev " + port + " vid 9", "is in VLAN 9"},
		{"a VLAN less", "bridge vlan del dev " + port + " vid 11", "bridge vlan add dev " + port + " vid 11", "is not in VLAN 11"},
		{"no filtering", "ip link set docker0 type bridge vlan_filtering 0", "ip link set docker0 type bridge vlan_filtering 1", "does not filter VLANs"},
	} {
		nstest.Sh(t, l.node, row.break_)
		l.refused("CHECK", p, 100, row.want)
		nstest.Sh(t, l.node, row.mend)
		l.must("CHECK", p)
	}
	l.must("DEL", p)
	other.must("DEL", b)
	l.add(p) // the gateway's interface has stayed
	l.must("CHECK", p)
}

// TestTheGatewaysLegIsMadeOnce makes the interface that has the gateway addresses of a VLAN, but for the VLANs themselves,
// so that it runs on kernels too whose bridges know none.
func TestTheGatewaysLegIsMadeOnce(t *testing.T) {
	conf, _, err := parse(call(t, `{"vlan":5,"ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]]}`))
	if err != nil {
		t.Fatal(err)
	}
	var addrs []attach.Addr
	for _, set := range conf.Sets {
		addrs = append(addrs, attach.Addr{Addr: set[0].Last, Subnet: set[0].Subnet, Gateway: set[0].Gateway})
	}
	want := attach.Decide(spec(&cni.Call{ContainerID: "a", IfName: "eth0", Net: cni.Network{Name: "net"}}, conf, 1400, addrs, nil))
	want.Bridge.Filtering, want.Bridge.Leg.Port.VLANs, want.Bridge.Leg.Port.KeepVLANs = false, nil, true
	node := nstest.New(t)
	nstest.Do(t, node, func() error {
		host, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer host.Close()
		bridge := rtnl.Link{}
		for range 2 {
			if bridge, err = ensureBridge(host, bridge, want, conf); err != nil {
				return err
			}
		}
		have, err := observeNode(host, want)
		if err != nil {
			return err
		}
		have.Port, have.Pod = want.Port, want.Pod // no pod is there yet
		if err := attach.Verify(want, have); err != nil {
			t.Error(err)
		}
		return host.Await("cni0.5")
	})
	if out := nstest.Sh(t, node, "ip -br addr; ip -br link show type veth"); !strings.Contains(out, "cni0.5@") || strings.Count(out, "10.10.10.1/24") != 1 || strings.Count(out, "fd00:10::1/64") != 1 ||
		!strings.Contains(out, "0a:58:0a:0a:0a:01") {
		t.Errorf("node:\n%s", out)
	}
	if out := nstest.Run(t, node, "ip", "-6", "addr", "show", "tentative"); strings.Contains(out, "fd00") {
		t.Errorf("tentative:\n%s", out)
	}
}

func TestTheGatewaysNameMayBeTaken(t *testing.T) {
	conf, _, err := parse(call(t, `{"vlan":5,"subnet":"10.10.10.0/24"}`))
	if err != nil {
		t.Fatal(err)
	}
	set := conf.Sets[0]
	want := attach.Decide(conf.Attach(attach.Spec{MTU: 1400, Addrs: []attach.Addr{{Addr: set[0].Last, Subnet: set[0].Subnet, Gateway: set[0].Gateway}}}))
	want.Bridge.Filtering = false
	node := nstest.New(t)
	nstest.Run(t, node, "ip", "link", "add", "cni0.5", "type", "bridge")
	nstest.Do(t, node, func() error {
		host, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer host.Close()
		if _, err := ensureBridge(host, rtnl.Link{}, want, conf); err == nil || !strings.Contains(err.Error(), "somebody else has an interface of that name") {
			t.Errorf("got %v", err)
		}
		return nil
	})
}
