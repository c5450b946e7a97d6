// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const dnsImage = "localhost/coredns:1"

// dnsManifest is CoreDNS as clusters have it: a pod on each node, behind the address that every pod's resolv.conf has.
const dnsManifest = `---
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      ready
      kubernetes cluster.local in-addr.arpa ip6.arpa
      cache 1
      loadbalance
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  replicas: 2
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {k8s-app: kube-dns}}}
      containers:
      - name: coredns
        image: ` + dnsImage + `
        args: [-conf, /etc/coredns/Corefile]
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/coredns}]
      volumes: [{name: config, configMap: {name: coredns}}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: ` + dnsVIP + `
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
`

// names are services found by their names, from pods: the cluster's DNS is reached as any service is, by datagrams.
func names(t *testing.T, c *cluster) {
	c.apply(t, dnsManifest+serviceOf("headless", "web", "clusterIP: None, ports: [{port: 8080}]"))
	c.kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=5m")
	pods := c.pods(t, "web")
	var all []string
	for _, p := range pods {
		all = append(all, p.Status.PodIP)
	}
	slices.Sort(all)
	for _, p := range pods {
		for name, want := range map[string]string{
			"web": "10.100.87.105", "kubernetes.default.svc.cluster.local": firstVIP, "kube-dns.kube-system": dnsVIP, "headless": strings.Join(all, " "),
		} {
			within(t, patience, name+" from "+p.Name, func() error {
				out, err := c.try("exec", p.Name, "--", "/guest", "lookup", name)
				got := strings.Fields(out)
				slices.Sort(got)
				if err != nil || strings.Join(got, " ") != want {
					return fmt.Errorf("%q, want %q: %w", got, want, err)
				}
				return nil
			})
		}
		within(t, patience, "a service by its name from "+p.Name, func() error {
			out, err := c.try("exec", p.Name, "--", "/guest", "get", "http://web/")
			if err == nil && !strings.Contains(out, "pod: web-") {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
}
