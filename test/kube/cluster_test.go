// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/lab"
)

const dnsVIP = "10.100.0.10"

// cluster is a control plane and two nodes, one on each side of the switch.
type cluster struct {
	*control
	lab   *lab.Lab
	nodes []*node
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	l := up(t, lab.FRR)
	bothFamilies(t, l)
	c := &cluster{control: newControl(t, l), lab: l}
	t.Cleanup(func() {
		if t.Failed() {
			c.tell()
		}
	})
	start := time.Now()
	c.schedule(t)
	images := saveImages(t)
	for _, name := range []string{"kubminion1", "kubminion3"} {
		c.nodes = append(c.nodes, c.join(t, l.Hosts[name], images))
	}
	c.install(t)
	for _, n := range c.nodes {
		n.ready(t)
	}
	c.installed(t)
	t.Logf("two nodes: ready after %v", time.Since(start).Round(10*time.Millisecond))
	return c
}

// tell prints what the cluster has to say, and its daemons.
func (c *cluster) tell() {
	for _, args := range []string{
		"get nodes,pods,svc,endpointslices -A -o wide", "get events -A --sort-by=.lastTimestamp", "-n l3edge logs -l app.kubernetes.io/name=l3edge --all-containers --prefix --tail=60",
	} {
		out, err := exec.Command(program("kubectl"), append([]string{"--kubeconfig=" + c.path("admin.conf")}, strings.Fields(args)...)...).CombinedOutput()
		fmt.Printf("######## kubectl %s (%v)\n%s\n", args, err, out)
	}
}

// deployment is pods of the guest that answer on port 8080, spread over the nodes.
func deployment(name string, replicas int, more string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 20
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: %[1]s}}}
      containers:
      - name: guest
        image: `+guestImage+`
        args: [serve, "8080"]
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        ports: [{containerPort: 8080%[3]s}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 5}}}
`, name, replicas, more)
}

// serviceOf is a Service of the application's pods, with a spec of YAML's flow style.
func serviceOf(name, app, spec string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: %s}, %s}\n", name, app, spec)
}

func (c *cluster) apply(t *testing.T, manifest string) {
	t.Helper()
	file := c.path("manifest.yaml")
	must(t, writeFile(file, manifest))
	c.kubectl(t, "apply", "-f", file)
}

// pods are those of the application, with an address and not on their way out.
func (c *cluster) pods(t *testing.T, app string) (out []core.Pod) {
	t.Helper()
	list, err := c.admin.CoreV1().Pods("default").List(t.Context(), meta.ListOptions{LabelSelector: "app=" + app})
	must(t, err)
	for _, p := range list.Items {
		if p.Status.PodIP != "" && p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

func TestCluster(t *testing.T) {
	c := newCluster(t)
	const vip = "10.100.87.105:80"
	outside := c.lab.Hosts["outside"]
	t.Run("a deployment, its pods and the switch", func(t *testing.T) {
		c.apply(t, deployment("web", 4, "")+serviceOf("web", "web", "type: NodePort, clusterIP: 10.100.87.105, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]"))
		c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=5m")
		seen := map[string]bool{}
		for _, p := range c.pods(t, "web") {
			seen[p.Spec.NodeName] = true
			within(t, patience, p.Name+" from outside", func() error { return answersAt(outside, p.Status.PodIP+":8080", p.Name) })
		}
		if len(seen) != 2 {
			t.Errorf("pods run on %v, want both nodes", seen)
		}
	})
	t.Run("its service, from node, pod and outside", func(t *testing.T) {
		for _, n := range c.nodes {
			within(t, patience, "the VIP from "+n.Name, func() error { _, err := n.Ask(vip); return err })
		}
		for _, p := range c.pods(t, "web") {
			for range 4 {
				out := c.kubectl(t, "exec", p.Name, "--", "/guest", "get", "http://10.100.87.105/hello")
				if !strings.Contains(out, "client: "+p.Status.PodIP+":") && !strings.Contains(out, "pod: "+p.Name+"\n") {
					t.Errorf("from %s: the client's address was changed:\n%s", p.Name, out)
				}
			}
		}
		for _, n := range c.nodes {
			within(t, patience, "the NodePort of "+n.Name, func() error { _, err := outside.Ask(fmt.Sprint(n.Spec.Addr.Addr(), ":30080")); return err })
		}
	})
	t.Run("logs", func(t *testing.T) {
		within(t, patience, "a request in the logs", func() error {
			all := c.kubectl(t, "logs", "-l", "app=web", "--tail=-1")
			if !strings.Contains(all, "GET /hello") {
				return errors.New(all)
			}
			return nil
		})
	})
	t.Run("names", func(t *testing.T) { names(t, c) })
	t.Run("kinds of services", func(t *testing.T) { kinds(t, c) })
	t.Run("both families", func(t *testing.T) { dual(t, c) })
	t.Run("addresses that are announced", func(t *testing.T) { announced(t, c) })
	t.Run("hostPort", func(t *testing.T) { hostPort(t, c) })
	t.Run("what the cluster is told", func(t *testing.T) { told(t, c) })
	t.Run("what l3ctl tells of all nodes", func(t *testing.T) { all(t, c) })
	t.Run("rolling update", func(t *testing.T) {
		c.steady(t, "the rolling update", func() {
			c.kubectl(t, "rollout", "restart", "deployment/web")
			c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=5m")
		})
	})
	t.Run("restarts of what runs pods", func(t *testing.T) { restarts(t, c) })
	t.Run("update of l3edge itself", func(t *testing.T) {
		c.steady(t, "the update of the DaemonSet", func() {
			c.kubectl(t, "-n", "l3edge", "rollout", "restart", "daemonset/l3edge")
			c.installed(t)
		})
	})
	t.Run("crashes while the API server is away", func(t *testing.T) { crashes(t, c) })
	t.Run("drain", func(t *testing.T) { drain(t, c) })
	t.Run("rights", func(t *testing.T) { c.mustUseEveryRight(t) })
	if !t.Run("reboot", func(t *testing.T) { reboot(t, c) }) {
		return
	}
	t.Run("uninstall", func(t *testing.T) { uninstall(t, c) })
}

// steady asks the service web from a node, its NodePort from outside, and a pod of the other node from a node, while
// something happens. No request may fail.
func (c *cluster) steady(t *testing.T, during string, happens func()) {
	t.Helper()
	all := []*traffic{begin(c.nodes[0].Place, "10.100.87.105:80"), begin(c.lab.Hosts["outside"].Place, "192.168.10.64:30080")}
	happens()
	for _, f := range all {
		f.end(t, during)
	}
}
