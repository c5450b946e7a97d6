// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// Pod compares a pod's attachment with what ADD had made: its veth, its bridge, its own end.
func Pod(h view.Host, p view.Pod) []Finding {
	if p.Bridge == "" || p.Veth == "" {
		return nil // not an attachment to a bridge
	}
	c := podCheck{h: h, p: p}
	c.bridge()
	c.port()
	c.inside()
	return c.found
}

type podCheck struct {
	h     view.Host
	p     view.Pod
	found []Finding
}

func (c *podCheck) add(problem, cause, fix string, r *Repair) {
	c.found = append(c.found, Finding{Part: "pod " + c.p.Short(), Problem: problem, Cause: cause, Fix: fix, Repair: r})
}

const remake = "delete the pod and let it be made anew"

func (c *podCheck) bridge() {
	b, ok := c.h.Link(c.p.Bridge)
	if !ok {
		c.add("its bridge "+c.p.Bridge+" has gone", "somebody deleted it, and with it every pod's connection", remake, nil)
		return
	}
	if !b.Up {
		c.add("its bridge "+b.Name+" is down", "somebody set it down", "ip link set "+b.Name+" up", &Repair{Op: LinkUp, Link: b.Name})
	}
	for i, gw := range c.p.Gateways {
		if slices.ContainsFunc(b.Addrs, func(a netip.Prefix) bool { return a.Addr() == gw }) {
			continue
		}
		length := gw.BitLen()
		if i < len(c.p.Want.Addrs) {
			length = c.p.Want.Addrs[i].Bits()
		}
		for _, s := range c.h.PodSubnets() { // a routed pod's own address says nothing about the subnet
			if s.Contains(gw) {
				length = s.Bits()
			}
		}
		a := netip.PrefixFrom(gw, length)
		c.add(fmt.Sprintf("its gateway %s is not on %s", gw, b.Name), "somebody removed the address (ip addr flush, a network manager)",
			fmt.Sprintf("ip addr add %s dev %s", a, b.Name), &Repair{Op: AddAddress, Link: b.Name, Prefix: a})
	}
}

func (c *podCheck) port() {
	v, ok := c.h.Link(c.p.Veth)
	if !ok {
		c.add("its veth "+c.p.Veth+" has gone", "somebody deleted it", remake, nil)
		return
	}
	want := v.Port
	if c.p.Port != nil {
		want = *c.p.Port
	}
	join := &Repair{Op: JoinBridge, Link: v.Name, Bridge: c.p.Bridge, Port: want}
	switch {
	case v.Master != c.p.Bridge:
		where := "is no port of a bridge"
		if v.Master != "" {
			where = "is a port of " + v.Master
		}
		c.add(fmt.Sprintf("its veth %s %s, want %s", v.Name, where, c.p.Bridge), "somebody took it off (ip link set nomaster, a network manager)",
			fmt.Sprintf("ip link set %s master %s", v.Name, c.p.Bridge), join)
	case v.Port != want:
		c.add(fmt.Sprintf("its veth %s has hairpin %t and isolation %t, want %t and %t", v.Name, v.Port.Hairpin, v.Port.Isolated, want.Hairpin, want.Isolated),
			"it was taken off the bridge and put back by hand", fmt.Sprintf("bridge link set dev %s hairpin %s isolated %s", v.Name, onOff(want.Hairpin), onOff(want.Isolated)), join)
	case !v.Up:
		c.add("its veth "+v.Name+" is down", "somebody set it down", "ip link set "+v.Name+" up", &Repair{Op: LinkUp, Link: v.Name})
	}
	if c.p.Unbound != "" {
		c.add("its veth "+v.Name+" is not bound to its addresses: "+c.p.Unbound, "somebody changed the rules of table bridge "+mark.TablePods+" (nft flush ruleset, a firewall that reloads): the pod may send as anybody",
			"l3ctl doctor --repair binds it again", &Repair{Op: BindPort, Link: v.Name, Container: c.p.Container, IfName: c.p.IfName})
	}
}

func onOff(v bool) string {
	if v {
		return "on"
	}
	return "off"
}

// inside looks at the pod's end.
func (c *podCheck) inside() {
	have := c.p.Have
	if have == nil {
		return
	}
	inPod := func(op Op) *Repair { return &Repair{Op: op, Netns: c.p.Netns, Link: c.p.IfName} }
	enter := "nsenter --net=" + c.p.Netns + " "
	if have.MAC == "" {
		c.add(c.p.IfName+" has gone from its namespace", "somebody deleted or renamed it", remake, nil)
		return
	}
	if have.Down && !c.p.Want.Down {
		c.add(c.p.IfName+" is down", "somebody inside the pod set it down", enter+"ip link set "+c.p.IfName+" up", inPod(LinkUp))
	}
	for _, a := range c.p.Want.Addrs {
		if !slices.ContainsFunc(have.Addrs, func(x netip.Prefix) bool { return x.Addr() == a.Addr() }) {
			r := inPod(AddAddress)
			r.Prefix = a
			c.add(fmt.Sprintf("its address %s is not on %s", a.Addr(), c.p.IfName), "somebody inside the pod removed it", fmt.Sprintf("%sip addr add %s dev %s", enter, a, c.p.IfName), r)
		}
	}
	for _, want := range c.p.Want.Routes {
		if !slices.ContainsFunc(have.Routes, func(x view.Route) bool { return x.Dst == want.Dst && x.Via == want.Via }) {
			r := inPod(AddRoute)
			r.Prefix = want.Dst
			if want.Via.IsValid() {
				r.Via = []netip.Addr{want.Via}
			}
			c.add("its route "+want.String()+" is missing", "it was deleted inside the pod, or went with an address", enter+"ip route add "+want.String()+" dev "+c.p.IfName, r)
		}
	}
}
