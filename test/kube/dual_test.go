// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// second is the host's other address: the lab has IPv4 only.
func second(a netip.Prefix) netip.Prefix {
	b := a.Addr().As4()
	return netip.MustParsePrefix(fmt.Sprintf("fd00:%d:%d:%d::%d/64", b[0], b[1], b[2], b[3]))
}

// bothFamilies gives the hosts of the lab IPv6 beside IPv4, and has the switch speak of both on its sessions, and use all
// nodes that announce the same.
func bothFamilies(t *testing.T, l *lab.Lab) {
	t.Helper()
	run := func(h *lab.Host, script string) {
		t.Helper()
		_, err := h.Run("sh", "-ec", script)
		must(t, err)
	}
	run(l.MLS.Host, "sysctl -qw net.ipv6.conf.all.forwarding=1")
	for _, s := range l.Topology.Segments {
		run(l.MLS.Host, fmt.Sprintf("ip addr add %s dev %s nodad", second(s.Addr), s.Bridge))
	}
	for _, name := range []string{"kubmasta", "kubminion1", "kubminion3", "outside"} {
		h := l.Hosts[name]
		run(h, fmt.Sprintf("ip addr add %s dev %s nodad; ip -6 route add default via %s", second(h.Spec.Addr), lab.Uplink, second(l.Topology.SegmentOf(h.Spec).Addr).Addr()))
	}
	must(t, l.MLS.Configure(fmt.Sprintf("router bgp %d\n bgp bestpath as-path multipath-relax\n address-family ipv6 unicast\n  neighbor NODES activate\n", topology.MLSASN)))
}

// dual is a service of both families, and pods that are reached over both.
func dual(t *testing.T, c *cluster) {
	outside := c.lab.Hosts["outside"]
	c.apply(t, serviceOf("dual", "web", "type: NodePort, ipFamilyPolicy: RequireDualStack, clusterIP: 10.100.7.6, clusterIPs: [10.100.7.6, 'fd10:100::706'], ports: [{port: 80, targetPort: 8080, nodePort: 30086}]"))
	for _, p := range c.pods(t, "web") {
		if len(p.Status.PodIPs) != 2 {
			t.Fatalf("%s has the addresses %v, want one of each family", p.Name, p.Status.PodIPs)
		}
		for _, ip := range p.Status.PodIPs {
			at := netip.AddrPortFrom(netip.MustParseAddr(ip.IP), 8080).String()
			within(t, patience, p.Name+" from outside at "+at, func() error { return answersAt(outside, at, p.Name) })
		}
		within(t, patience, "the service from "+p.Name, func() error {
			for _, vip := range []string{"10.100.7.6", "[fd10:100::706]"} {
				if out, err := c.try("exec", p.Name, "--", "/guest", "get", "http://"+vip+"/"); err != nil || !strings.Contains(out, "pod: web-") {
					return fmt.Errorf("%s: %w: %s", vip, err, out)
				}
			}
			out, err := c.try("exec", p.Name, "--", "/guest", "lookup", "dual")
			got := strings.Fields(out)
			slices.Sort(got)
			if want := []string{"10.100.7.6", "fd10:100::706"}; err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("%v, want %v: %w", got, want, err)
			}
			return nil
		})
	}
	for _, n := range c.nodes {
		for _, at := range []netip.AddrPort{
			netip.AddrPortFrom(n.Spec.Addr.Addr(), 30086), netip.AddrPortFrom(second(n.Spec.Addr).Addr(), 30086),
		} {
			within(t, patience, "the NodePort at "+at.String(), func() error { _, err := outside.Ask(at.String()); return err })
		}
		within(t, patience, "the VIP from "+n.Name, func() error { _, err := n.Ask("[fd10:100::706]:80"); return err })
	}
}

// announced are load balancer addresses, as clients beyond the fabric see them: the switch knows which nodes to ask.
func announced(t *testing.T, c *cluster) {
	const four, six = "203.0.113.20", "2001:db8::20"
	c.apply(t, serviceOf("outer", "web", "type: LoadBalancer, ipFamilyPolicy: RequireDualStack, clusterIP: 10.100.7.7, clusterIPs: [10.100.7.7, 'fd10:100::707'], ports: [{port: 80, targetPort: 8080}]"))
	c.kubectl(t, "patch", "service", "outer", "--subresource=status", "--type=merge", `--patch={"status":{"loadBalancer":{"ingress":[{"ip":"`+four+`"},{"ip":"`+six+`"}]}}}`)
	ways := func(n int) func() error {
		return func() error {
			for family, ip := range map[string]string{"-4": four, "-6": six} {
				out, err := c.lab.MLS.Run("ip", family, "route", "show", ip)
				if got := strings.Count(out, "via "); err != nil || got != n {
					return fmt.Errorf("%d ways to %s, want %d: %v\n%s", got, ip, n, err, out)
				}
			}
			return nil
		}
	}
	within(t, patience, "the switch knows both nodes", ways(2))
	answer := func() {
		t.Helper()
		for _, at := range []string{four + ":80", "[" + six + "]:80"} {
			within(t, patience, at+" from outside", func() error { _, err := c.lab.Hosts["outside"].Ask(at); return err })
		}
	}
	answer() // a connection that is open while the switch moves it to another node is lost, so nothing is asked meanwhile
	const label = "node.kubernetes.io/exclude-from-external-load-balancers"
	c.kubectl(t, "label", "node", c.nodes[0].Name, label+"=")
	within(t, patience, "and one of them, when the other has the label", ways(1))
	answer()
	c.kubectl(t, "label", "node", c.nodes[0].Name, label+"-")
	within(t, patience, "and both again", ways(2))
	answer()
	c.kubectl(t, "delete", "service", "outer")
	within(t, patience, "and none when the service is gone", ways(0))
}
