// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// install brings l3edge to every node, as the guide says; load balancer addresses are to be announced.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(manifests("l3edge.yaml"))
	must(t, err)
	const peers = "    peers:\n      - name: mls\n"
	if strings.Count(string(b), peers) != 1 {
		t.Fatalf("the manifest has not got the peers\n%s", peers)
	}
	c.apply(t, strings.Replace(string(b), peers, peers+"    announceVIPs: true\n", 1))
}

// installed waits until the DaemonSet is there on all nodes.
func (c *cluster) installed(t *testing.T) {
	t.Helper()
	c.kubectl(t, "-n", "l3edge", "rollout", "status", "daemonset/l3edge", "--timeout=5m")
}

// daemons are the DaemonSet's pods, by the name of their node.
func (c *cluster) daemons(t *testing.T) map[string]core.Pod {
	t.Helper()
	list, err := c.admin.CoreV1().Pods("l3edge").List(t.Context(), meta.ListOptions{})
	must(t, err)
	out := map[string]core.Pod{}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			out[p.Spec.NodeName] = p
		}
	}
	return out
}

// uninstall takes everything away again, as the guide says.
func uninstall(t *testing.T, c *cluster) {
	c.kubectl(t, "delete", "deployments", "--all", "--cascade=foreground", "--timeout=5m")
	c.kubectl(t, "-n", "kube-system", "delete", "deployments", "--all", "--cascade=foreground", "--timeout=5m")
	n := c.nodes[0]
	if out, err := n.Run("l3ctl", "cleanup"); err == nil || !strings.Contains(err.Error(), "routed is running") {
		t.Errorf("cleanup beside running daemons: %v\n%s", err, out)
	}
	c.kubectl(t, "delete", "-f", manifests("l3edge.yaml"), "--timeout=5m")
	for _, n := range c.nodes {
		within(t, patience, "cleanup of "+n.Name, func() error { _, err := n.Run("l3ctl", "cleanup"); return err })
		left, err := n.Run("sh", "-c", `ls -d /run/l3edge; ls /etc/cni/net.d /opt/cni/bin | grep -v -e loopback -e : ; nft list tables | grep l3edge
			for f in -4 -6; do ip $f route show proto 103; ip $f route show proto 104; done
			ip nexthop; ip link show cni0; { iptables-save; ip6tables-save; } | grep KUBE-PORTALS; true`)
		if strings.TrimSpace(left) != "" || err != nil {
			t.Errorf("left on %s: %v\n%s", n.Name, err, left)
		}
	}
}

func TestRenderedManifests(t *testing.T) {
	want, err := exec.Command(program("kubectl"), "kustomize", manifests("base")).Output()
	must(t, err)
	have, err := os.ReadFile(manifests("l3edge.yaml"))
	must(t, err)
	if string(want) != string(have) {
		t.Error("conf/kubernetes/l3edge.yaml is not what conf/kubernetes/base gives: kubectl kustomize conf/kubernetes/base > conf/kubernetes/l3edge.yaml")
	}
}
