// SPDX-License-Identifier: Apache-2.0

// Package kube runs what a cluster is made of, on the hosts of the lab, and our part of it against the real thing.
package kube

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/cri"
	"github.com/l3edge/l3edge/pkg/lab/nest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// What the outer process tells the inner one: where programs lie, ours and those of Kubernetes.
const (
	binVar  = "L3EDGE_KUBE_BIN"
	rootVar = "L3EDGE_KUBE_ROOT" // the product's module
	kubeVar = "L3EDGE_KUBE_PROGRAMS"
	// groupVar names the control group that all pods live in.
	groupVar = "L3EDGE_KUBE_GROUP"
)

func TestMain(m *testing.M) {
	if nest.Boot() != nil {
		os.Exit(m.Run())
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		code = 1
	}
	os.Exit(code)
}

// outside builds what the tests need, runs them in a nest, and removes the control groups, which outlive it.
func outside() (code int, err error) {
	if err := cri.Probe(); err != nil {
		return 1, err
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/l3edge/l3edge").Output()
	if err != nil {
		return 1, fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	if bin := filepath.Join(root, "bin"); os.Getenv(binVar) == "" { // otherwise they are there already
		if out, err := exec.Command("make", "--no-print-directory", "-s", "-C", root, "build").CombinedOutput(); err != nil {
			return 1, fmt.Errorf("make build: %w\n%s", err, out)
		}
		if err := os.Setenv(binVar, bin); err != nil {
			return 1, err
		}
	}
	start := time.Now()
	if err := buildKubernetes(root); err != nil {
		return 1, err
	}
	if err := pack(root); err != nil {
		return 1, err
	}
	fmt.Printf("the programs of Kubernetes: built in %v\n", time.Since(start).Round(100*time.Millisecond))
	if err := errors.Join(os.Setenv(rootVar, root), os.Setenv(kubeVar, filepath.Join(root, "dist", "kube"))); err != nil {
		return 1, err
	}
	group := fmt.Sprintf("l3edge-kube-%d", os.Getpid())
	if err := os.Setenv(groupVar, group); err != nil {
		return 1, err
	}
	code, err = nest.Nest{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}.Run()
	return code, errors.Join(err, place.Eventually(10*time.Second, func() error { return cri.RemoveGroup(group) }))
}

// buildKubernetes builds what the tools of programs/go.mod name into dist/kube. It takes ten minutes at first and seconds
// afterwards, as long as nothing changes here: the flags are part of what Go's cache goes by.
func buildKubernetes(root string) error {
	dir := filepath.Join(root, "test", "kube", "programs")
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("find the version of Kubernetes: %w", err)
	}
	version := strings.TrimSpace(string(out))
	major, minor, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const at = " -X k8s.io/component-base/version."
	flags := "-s -w" + at + "gitVersion=" + version + at + "gitMajor=" + major + at + "gitMinor=" + minor + at + "gitTreeState=clean"
	for name, pkg := range kubernetes {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", flags, "-o", filepath.Join(root, "dist", "kube", name), pkg)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	// The cluster's DNS is a module of its own: it asks for other versions.
	cmd = exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(root, "dist", "kube", "coredns"), ".")
	cmd.Dir, cmd.Env = filepath.Join(root, "test", "kube", "dns"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build CoreDNS: %w\n%s", err, out)
	}
	// Beside the tests' own there is the loopback plugin: containerd cannot do without.
	cmd = exec.Command("go", "build", "-o", filepath.Join(root, "dist", "kube")+"/", "./guest", "github.com/containernetworking/plugins/plugins/main/loopback")
	cmd.Dir, cmd.Env = filepath.Join(root, "test", "kube"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests' programs: %w\n%s", err, out)
	}
	return nil
}

// pack makes the image that the manifests ask for, of our programs as they are now.
func pack(root string) error {
	name, tag, err := image(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "l3edge-kube-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	bin := filepath.Join(dir, runtime.GOARCH)
	if err := os.Symlink(binDir(), bin); err != nil {
		return err
	}
	cmd := exec.Command("go", "run", ".", "-name="+name, "-version="+tag, "-o="+filepath.Join(root, "dist", "kube", "l3edge.tar"), bin)
	cmd.Dir = filepath.Join(root, "tools", "pack")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the image: %w\n%s", err, out)
	}
	return nil
}

// image is the image's name without registry, and its tag, as the manifests have them.
func image(root string) (name, tag string, err error) {
	b, err := os.ReadFile(filepath.Join(root, "conf", "kubernetes", "l3edge.yaml"))
	if err != nil {
		return "", "", err
	}
	m := regexp.MustCompile(`image: ghcr.io/l3edge/(\S+):(\S+)`).FindSubmatch(b)
	if m == nil {
		return "", "", errors.New("the manifests name no image")
	}
	return string(m[1]), string(m[2]), nil
}

// kubernetes are the programs that a cluster is made of.
var kubernetes = map[string]string{
	"etcd": "go.etcd.io/etcd/server/v3", "kubectl": "k8s.io/kubernetes/cmd/kubectl", "kubelet": "k8s.io/kubernetes/cmd/kubelet",
	"kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver", "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}

// binDir is where our own programs lie.
func binDir() string { return os.Getenv(binVar) }

// program is where a program of Kubernetes lies.
func program(name string) string { return filepath.Join(os.Getenv(kubeVar), name) }

// up is a lab for this test, and a desk in it: the test itself sits on the master's network.
func up(t *testing.T, mls lab.Kind) *lab.Lab {
	t.Helper()
	l, err := lab.Up(lab.Config{Bin: binDir(), MLS: mls})
	if l != nil {
		t.Cleanup(func() {
			if t.Failed() {
				l.Dump(os.Stdout)
			}
			l.Down()
		})
	}
	must(t, err)
	for _, command := range []string{
		"ip link set lo up",
		"ip link add desk type veth peer name swp-desk netns mls",
		"ip addr add 10.20.30.9/24 dev desk",
		"ip link set desk up",
		"ip route add default via 10.20.30.1",
	} {
		args := strings.Fields(command)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "desk").Run() })
	_, err = l.MLS.Run("ip", "link", "set", "swp-desk", "master", "br20", "up")
	must(t, err)
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within fails the test unless f returns nil within the limit, and tells how long it took.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	start := time.Now()
	if err := place.Eventually(limit, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	t.Logf("%s: after %v", what, time.Since(start).Round(time.Millisecond))
}

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
