// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	client "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// The master's address, and what pods and Services get theirs from.
const (
	masta       = "10.20.30.61"
	serviceNet  = "10.100.0.0/16"
	serviceNet6 = "fd10:100::/112"
	firstVIP    = "10.100.0.1"
	clusterCIDR = "10.10.0.0/16,fd10:10::/56"
)

// patience is how long anything may take: a busy machine is no reason to fail.
const patience = 2 * time.Minute

// control is a control plane on kubmasta.
type control struct {
	*authority
	host  *lab.Host
	admin *client.Clientset
	first *server
	ctx   context.Context //nolint:containedctx // the test's
}

// server is one API server.
type server struct {
	c    *control
	port int
	proc *place.Process
}

func (s *server) url() string { return fmt.Sprintf("https://%s:%d", masta, s.port) }

// audit is where the server writes who asked what.
func (s *server) audit() string { return s.c.path(fmt.Sprintf("audit-%d.log", s.port)) }

// newControl starts etcd and an API server, and waits for it.
func newControl(t *testing.T, l *lab.Lab) *control {
	t.Helper()
	c := &control{ctx: t.Context(), host: l.Hosts["kubmasta"], authority: newAuthority(t, filepath.Join(lab.Dir, "kubernetes"))}
	c.server(t, "apiserver", masta, firstVIP, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1")
	c.client(t, "admin", "admin", "system:masters")
	c.client(t, "sa", "unused", "")
	must(t, os.WriteFile(c.path("audit.yaml"), []byte(`{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata","users":["`+account+`"]},{"level":"None"}]}`), 0o600))
	start := time.Now()
	_, err := c.host.Start("etcd", program("etcd"), "--name=m", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=m=http://127.0.0.1:2380")
	must(t, err)
	c.first = c.serve(t, 6443)
	c.admin = clientOf(t, c.kubeconfig(t, "admin", c.first.url()))
	c.ready(t)
	t.Logf("etcd and an API server: ready after %v", time.Since(start).Round(10*time.Millisecond))
	return c
}

// clientOf asks without haste control.
func clientOf(t *testing.T, kubeconfig string) *client.Clientset {
	t.Helper()
	conf, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	must(t, err)
	conf.QPS, conf.Burst = -1, -1
	c, err := client.NewForConfig(conf)
	must(t, err)
	return c
}

// serve starts an API server on the port.
func (c *control) serve(t *testing.T, port int) *server {
	t.Helper()
	s := &server{c: c, port: port}
	s.start(t)
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	c := s.c
	var err error
	s.proc, err = c.host.Start("kube-apiserver", program("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
		"--bind-address="+masta, "--advertise-address="+masta, fmt.Sprintf("--secure-port=%d", s.port), "--service-cluster-ip-range="+serviceNet+","+serviceNet6,
		"--cert-dir="+c.dir, "--tls-cert-file="+c.path("apiserver.crt"), "--tls-private-key-file="+c.path("apiserver.key"), "--client-ca-file="+c.path("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.path("sa.pub"), "--service-account-signing-key-file="+c.path("sa.key"),
		"--kubelet-client-certificate="+c.path("admin.crt"), "--kubelet-client-key="+c.path("admin.key"),
		"--kubelet-preferred-address-types=InternalIP", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+s.audit())
	must(t, err)
}

// kill ends the server as a power cut does.
func (s *server) kill() { s.proc.Kill() }

// restart starts a server that was killed, and waits for it.
func (s *server) restart(t *testing.T) {
	t.Helper()
	s.start(t)
	s.c.ready(t)
}

// ready waits until the first server answers.
func (c *control) ready(t *testing.T) {
	t.Helper()
	if err := place.Eventually(patience, func() error {
		if _, err := c.first.proc.Running(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return c.admin.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}); err != nil {
		t.Fatalf("the API server is not ready: %v", err)
	}
}

// kubectl runs kubectl as the cluster's administrator and returns what it says.
func (c *control) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is kubectl where it may fail; the error has what it says.
func (c *control) try(args ...string) (string, error) {
	out, err := exec.Command(program("kubectl"), append([]string{"--kubeconfig=" + c.path("admin.conf")}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %v: %w\n%s", args, err, out)
	}
	return string(out), err
}
