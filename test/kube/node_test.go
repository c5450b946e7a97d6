// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/cri"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// node is a node of the cluster: a host of the lab with containerd and a kubelet.
type node struct {
	*cri.Runtime
	c       *control
	kubelet *place.Process
}

const kubeletConf = "/etc/kubernetes/kubelet.conf" // where kubeadm has it

// schedule starts what gives pods a node, nodes their pods' addresses, and services their endpoints.
func (c *control) schedule(t *testing.T) {
	t.Helper()
	c.client(t, "kube-controller-manager", "system:kube-controller-manager", "")
	c.client(t, "kube-scheduler", "system:kube-scheduler", "")
	_, err := c.host.Start("kube-controller-manager", program("kube-controller-manager"), "--kubeconfig="+c.kubeconfig(t, "kube-controller-manager", c.first.url()),
		"--allocate-node-cidrs=true", "--cluster-cidr="+clusterCIDR, "--service-cluster-ip-range="+serviceNet+","+serviceNet6, "--configure-cloud-routes=false",
		"--service-account-private-key-file="+c.path("sa.key"), "--root-ca-file="+c.path("ca.crt"), "--use-service-account-credentials=true", "--leader-elect=false")
	must(t, err)
	_, err = c.host.Start("kube-scheduler", program("kube-scheduler"), "--kubeconfig="+c.kubeconfig(t, "kube-scheduler", c.first.url()), "--leader-elect=false")
	must(t, err)
}

// join makes the host a node of the cluster, with these images on it. There is no network for pods yet.
func (c *control) join(t *testing.T, h *lab.Host, images []string) *node {
	t.Helper()
	r, err := cri.Install(h, os.Getenv(groupVar))
	must(t, err)
	n := &node{Runtime: r, c: c}
	t.Cleanup(func() {
		if n.kubelet != nil {
			n.kubelet.Kill()
		}
		if err := r.Kill(); err != nil {
			t.Error(err)
		}
	})
	for _, command := range []string{
		"rm -rf /etc/cni/net.d /opt/cni/bin; mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/kubelet",
		"mount -t tmpfs kubelet /var/lib/kubelet",
		"mount -t tmpfs log /var/log",
		"mount --make-rshared /",
	} {
		_, err := h.Run("sh", "-c", command)
		must(t, err)
	}
	n.hideSettings(t)
	loopback, err := os.ReadFile(program("loopback"))
	must(t, err)
	must(t, os.WriteFile(r.File("/opt/cni/bin/loopback"), loopback, 0o755))
	must(t, cri.MakeGroup(r.Group))
	must(t, r.Start())
	for _, image := range images {
		must(t, r.Import(image))
	}
	c.client(t, h.Name, "system:node:"+h.Name, "system:nodes")
	conf, err := os.ReadFile(c.kubeconfig(t, h.Name, c.first.url()))
	must(t, err)
	must(t, h.WriteFile(kubeletConf, string(conf)))
	must(t, h.WriteFile("/var/lib/kubelet/config.yaml", n.kubeletConfig()))
	n.startKubelet(t)
	return n
}

// hideSettings lays files over the settings of the whole machine that a kubelet changes: they have the values already that
// it wants.
func (n *node) hideSettings(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := "/run/sysctl/" + strings.ReplaceAll(name, "/", ".")
		must(t, n.WriteFile(file, value))
		_, err := n.Run("mount", "--bind", file, "/proc/sys/"+name)
		must(t, err)
	}
}

func (n *node) kubeletConfig() string {
	return `kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
containerRuntimeEndpoint: unix://` + cri.Socket + `
cgroupDriver: cgroupfs
cgroupRoot: ` + n.Group + `
failCgroupV1: false
failSwapOn: false
evictionHard: {memory.available: 1Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
imageGCHighThresholdPercent: 100
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: ` + n.c.path("ca.crt") + `}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: [` + dnsVIP + `]
nodeStatusUpdateFrequency: 2s
`
}

func (n *node) startKubelet(t *testing.T) {
	t.Helper()
	var err error
	n.kubelet, err = n.Host.Start("kubelet", "env", "-i", "HOME=/root", "PATH="+lab.Path, program("kubelet"), "--config=/var/lib/kubelet/config.yaml",
		"--kubeconfig="+kubeletConf, "--hostname-override="+n.Name, "--node-ip="+n.Spec.Addr.Addr().String()+","+second(n.Spec.Addr).Addr().String())
	must(t, err)
}

// object is what the cluster knows of the node.
func (n *node) object() (*core.Node, error) {
	o, err := n.c.admin.CoreV1().Nodes().Get(n.c.ctx, n.Name, meta.GetOptions{})
	return o, err
}

// ready waits until the cluster may send pods to the node. A kubelet ends when its runtime is not ready yet, and is started
// again, as systemd does.
func (n *node) ready(t *testing.T) {
	t.Helper()
	within(t, patience, n.Name+" is ready", func() error {
		if _, err := n.kubelet.Running(); err != nil {
			n.startKubelet(t)
			return err
		}
		if _, err := n.Get("127.0.0.1:10248", "/healthz"); err != nil { // what the cluster knows may be old
			return err
		}
		o, err := n.object()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(o.Status.Conditions, func(c core.NodeCondition) bool { return c.Type == core.NodeReady })
		if i < 0 || o.Status.Conditions[i].Status != core.ConditionTrue {
			return fmt.Errorf("%+v", o.Status.Conditions)
		}
		return nil
	})
}

// The images: static programs of ours, so no registry is asked.
const guestImage = "localhost/guest:1"

// saveImages writes the images as archives that every host of the lab sees.
func saveImages(t *testing.T) (files []string) {
	t.Helper()
	for ref, programs := range map[string][]string{
		cri.PauseImage: {lab.Program("pause")}, guestImage: {program("guest")}, dnsImage: {program("coredns")},
	} {
		archive, err := cri.Image(ref, programs...)
		must(t, err)
		file := filepath.Join(lab.Dir, strings.NewReplacer("/", "_", ":", "_").Replace(ref)+".tar")
		must(t, os.WriteFile(file, archive, 0o644))
		files = append(files, file)
	}
	return append(files, program("l3edge.tar"))
}
