// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"

	"github.com/l3edge/l3edge/pkg/lab/place"
)

// one waits for the application's only pod to answer, and returns it.
func (c *cluster) one(t *testing.T, app string) core.Pod {
	t.Helper()
	c.kubectl(t, "rollout", "status", "deployment/"+app, "--timeout=5m")
	list := c.pods(t, app)
	if len(list) != 1 {
		t.Fatalf("%d pods of %s, want one", len(list), app)
	}
	return list[0]
}

// kinds are Services of every sort that a node answers.
func kinds(t *testing.T, c *cluster) {
	c.apply(t, deployment("one", 1, "")+
		serviceOf("balanced", "one", "type: LoadBalancer, ports: [{port: 80, targetPort: 8080}]")+
		serviceOf("external", "one", "clusterIP: 10.100.7.1, externalIPs: [203.0.113.7], ports: [{port: 80, targetPort: 8080}]")+
		serviceOf("sticky", "web", "clusterIP: 10.100.7.2, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]")+
		serviceOf("local", "one", "type: NodePort, externalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]")+
		serviceOf("inner", "one", "clusterIP: 10.100.7.3, internalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080}]")+
		serviceOf("none", "nothing", "clusterIP: 10.100.7.4, ports: [{port: 80, targetPort: 8080}]"))
	one, outside := c.one(t, "one"), c.lab.Hosts["outside"]
	c.kubectl(t, "patch", "service", "balanced", "--subresource=status", "--type=merge", `--patch={"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.10"}]}}}`)
	for _, n := range c.nodes {
		for _, vip := range []string{"203.0.113.10", "203.0.113.7", "10.100.7.1"} {
			within(t, patience, vip+" from "+n.Name, func() error { return answers(n.Host, vip, one.Name) })
		}
		var first place.Answer
		within(t, patience, "the service with affinity from "+n.Name, func() (err error) { first, err = n.Ask("10.100.7.2:80"); return err })
		for range 20 {
			if a, err := n.Ask("10.100.7.2:80"); err != nil || a.Pod != first.Pod {
				t.Errorf("affinity from %s: %s, then %s, %v", n.Name, first.Pod, a.Pod, err)
			}
		}
		here := n.Name == one.Spec.NodeName
		within(t, patience, fmt.Sprintf("externalTrafficPolicy Local at %s (pod there: %v)", n.Name, here), func() error {
			a, err := outside.Ask(fmt.Sprint(n.Spec.Addr.Addr(), ":30081"))
			if here != (err == nil) || here && a.Client.Addr().String() != "172.16.0.100" {
				return fmt.Errorf("%+v, %v", a, err)
			}
			return nil
		})
		within(t, patience, fmt.Sprintf("internalTrafficPolicy Local at %s (pod there: %v)", n.Name, here), func() error {
			if err := n.Reaches("10.100.7.3:80"); here != (err == nil) {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
		within(t, patience, "a service without endpoints is refused at "+n.Name, func() error {
			if err := n.Reaches("10.100.7.4:80"); err == nil || !strings.Contains(err.Error(), "refused") {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
	}
}

// hostPort publishes a pod at its node.
func hostPort(t *testing.T, c *cluster) {
	c.apply(t, deployment("published", 1, ", hostPort: 8081"))
	p := c.one(t, "published")
	at := fmt.Sprint(p.Status.HostIP, ":8081")
	within(t, patience, "hostPort from outside", func() error { return answersAt(c.lab.Hosts["outside"], at, p.Name) })
	c.kubectl(t, "delete", "deployment/published", "--wait", "--cascade=foreground")
	within(t, patience, "hostPort is gone", func() error {
		if err := c.lab.Hosts["outside"].Reaches(at); err == nil {
			return errors.New("it answers")
		}
		return nil
	})
}

// told is what operators see of l3edge without asking it.
func told(t *testing.T, c *cluster) {
	for _, n := range c.nodes {
		for kind, want := range map[core.NodeConditionType]core.ConditionStatus{core.NodeNetworkUnavailable: core.ConditionFalse, "l3edge.dev/BGP": core.ConditionTrue} {
			within(t, patience, fmt.Sprintf("%s: %s is %s", n.Name, kind, want), func() error {
				o, err := n.object()
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(o.Status.Conditions, func(x core.NodeCondition) bool { return x.Type == kind && x.Status == want }) {
					return fmt.Errorf("%+v", o.Status.Conditions)
				}
				return nil
			})
		}
	}
	n := c.nodes[1]
	must(t, c.lab.Unplug(n.Name))
	within(t, patience, "the session ends", func() error {
		out, err := n.Run("routed", "status")
		if err == nil && strings.Contains(out, "established") {
			err = errors.New(out)
		}
		return err
	})
	must(t, c.lab.Replug(n.Name))
	within(t, patience, "the session is back", func() error {
		out, err := n.Run("routed", "status")
		if err == nil && !strings.Contains(out, "established") {
			err = errors.New(out)
		}
		return err
	})
	within(t, patience, "events of the node", func() error {
		if out := c.kubectl(t, "events", "-A"); !strings.Contains(out, "Session") || !strings.Contains(out, "mls") {
			return errors.New(place.LastLines(out, 20))
		}
		return nil
	})
}
