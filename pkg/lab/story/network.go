// SPDX-License-Identifier: Apache-2.0

package story

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

const picture = `
                  outside 172.16.0.100
                           |
                  +--------+---------+
                  | mls, multilayer  |
                  | switch           |
                  +--+------------+--+
       10.20.30.0/24 |            | 192.168.10.0/24
     +---------------+-----+      +----+----------------+
     |          |          |           |                |
  kubmasta  kubminion1 kubminion2  kubminion3       kubminion4
    .61        .62        .63         .64              .65
            docker0    docker0     docker0          docker0
            10.10.10.0 10.10.20.0  10.10.30.0       10.10.40.0    /24 each
`

func (t *teller) title() {
	t.printf("%s\n", t.bold("l3edge: the lab of “Kubernetes 101 – Networking” (2015), from real programs"))
	t.say(`Everything below happens in network namespaces of this demo's own; nothing of it is left when it ends. What
		stands behind a # ran on that host, and ✓ stands only before what was checked.`)
}

func (t *teller) theLab() {
	t.printf("%s", picture)
	t.say(`A switch with two segments, four nodes, a master, and a client beyond the switch. Each node owns a /24 for its
		pods and is the router for it. In the article the switch had four static routes. Here it has none:`)
	mls := t.lab.MLS
	out := t.run(mls.Place, "ip -4 route")
	t.check("the switch knows its own segments and nothing else", onlyConnected(out))
	node := t.lab.Hosts["kubminion1"]
	out = t.run(node.Place, "ip -4 route")
	t.check("a node knows its segment, and the switch as its way out", that(!strings.Contains(out, "10.10."), "it has\n%s", out))
}

func onlyConnected(routes string) error {
	for line := range strings.Lines(routes) {
		if !strings.Contains(line, " proto kernel ") {
			return fmt.Errorf("it has %s", strings.TrimSpace(line))
		}
	}
	return nil
}

func (t *teller) theRoutes() {
	t.say(`On every node: routed, told nothing but the name of the switch. The pod subnet it finds in the node's CNI
		configuration, its own AS number it makes from the node's address, the switch's it learns.`)
	begin := time.Now()
	for _, h := range t.lab.Nodes() {
		t.must(h.StartRouted())
		t.prompt(h.Place, h.Routed.Command+" &")
	}
	err := place.Eventually(10*time.Second, t.lab.Converged)
	took := time.Since(begin)
	t.printf("\n")
	node, mls := t.lab.Hosts["kubminion1"], t.lab.MLS
	out := t.run(node.Place, "routed status")
	t.check(fmt.Sprintf("every node and the switch know the way to all pods, %d ms after the start", took.Milliseconds()), err)
	t.check(fmt.Sprintf("the node learned the switch's AS number %d", topology.MLSASN), that(strings.Contains(out, fmt.Sprint(topology.MLSASN)), "it does not show"))
	t.printf("\n")
	out = t.run(mls.Place, "ip -4 route")
	routes, err := mls.KernelRoutes(mls.RouteProtocol())
	t.must(err)
	t.check("the switch holds four routes from BGP, one per node, and no static route",
		errors.Join(that(len(routes) == 4, "it holds %v", routes), onlyFrom(out, "kernel", fmt.Sprint(mls.RouteProtocol()), "bgp", "bird")))
}

// onlyFrom is an error when a route comes from any but the protocols.
func onlyFrom(routes string, protocols ...string) error {
	for line := range strings.Lines(routes) {
		f := strings.Fields(line)
		i := slices.Index(f, "proto")
		if i < 0 || i+1 >= len(f) || !slices.Contains(protocols, f[i+1]) {
			return fmt.Errorf("it has %s", strings.TrimSpace(line))
		}
	}
	return nil
}

func (t *teller) theFailures() {
	node, mls, outside := t.lab.Hosts["kubminion2"], t.lab.MLS, t.lab.Hosts["outside"].Place
	t.say(`No static route to forget: a routed that stops takes its route along.`)
	t.prompt(node.Place, fmt.Sprintf("kill %d   # routed", node.Routed.Pid()))
	begin := time.Now()
	t.must(node.Routed.Stop())
	err := place.Eventually(2*time.Second, func() error { return lacks(mls, node) })
	took := time.Since(begin)
	t.run(mls.Place, fmt.Sprintf("ip -4 route show proto %d", mls.RouteProtocol()))
	t.check(fmt.Sprintf("the route to %s left the switch within %d ms", node.Spec.Pods, took.Milliseconds()), err)
	begin = time.Now()
	t.must(node.StartRouted())
	t.prompt(node.Place, node.Routed.Command+" &")
	err = place.Eventually(10*time.Second, t.lab.Converged)
	t.check(fmt.Sprintf("started again, it was back everywhere after %d ms", time.Since(begin).Milliseconds()), err)

	t.say(`Now somebody pulls kubminion3's cable out of the switch.`)
	t.run(mls.Place, "ip link set "+lab.SwitchPort("kubminion3")+" down")
	for _, p := range t.web {
		err := outside.Reaches(p.IP.String() + ":8080")
		if p.Host.Name == "kubminion3" {
			t.check(p.Info.Name+" on kubminion3 is out of reach", that(err != nil, "it answers"))
			continue
		}
		t.check(p.Info.Name+" on "+p.Host.Name+" still answers", err)
	}
	t.run(mls.Place, "ip link set "+lab.SwitchPort("kubminion3")+" up")
	err = place.Eventually(15*time.Second, func() error { return errors.Join(t.lab.Converged(), outside.Reaches(t.web[2].IP.String()+":8080")) })
	t.check("plugged in again, everything is reachable again", err)
}

func lacks(mls *lab.Switch, other *lab.Host) error {
	routes, err := mls.KernelRoutes(mls.RouteProtocol())
	if err == nil && slices.ContainsFunc(routes, func(r string) bool { return strings.HasPrefix(r, other.Spec.Pods.String()) }) {
		err = fmt.Errorf("%s still has it", mls.Name)
	}
	return err
}
