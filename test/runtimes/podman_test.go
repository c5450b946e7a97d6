// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab"
	containerd "github.com/l3edge/l3edge/pkg/lab/cri"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// podman is a node of the lab with podman, which has no daemon.
type podman struct{ *node }

const (
	containersConf = "/etc/l3edge-containers.conf"
	storageConf    = "/etc/l3edge-storage.conf"
)

// newPodman gives the host podman's configuration and the images. Its storage lies on the lab's tmpfs, whole copies of
// the images (vfs): the kernel takes no overlay as another's upper half. It asks no limits of the kernel that a
// container's root may not have.
func newPodman(t *testing.T, h *lab.Host) *podman {
	t.Helper()
	p := &podman{&node{Runtime: &containerd.Runtime{Host: h, Group: "/" + os.Getenv(groupVar) + "/" + h.Name}}}
	dir := filepath.Join(lab.Dir, "podman", h.Name)
	must(t, h.WriteFile(containersConf, `[containers]
apparmor_profile = "unconfined"
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
infra_image = "`+containerd.PauseImage+`"
tmp_dir = "/run/podman"
static_dir = "`+dir+`/libpod"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "l3edge"
`))
	must(t, h.WriteFile(storageConf, "[storage]\ndriver = \"vfs\"\ngraphroot = \""+dir+"/graph\"\nrunroot = \"/run/containers\"\n"))
	must(t, h.WriteFile("/etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`))
	_, err := h.Run("mount", "-t", "tmpfs", "cni", "/var/lib/cni") // the machine's own results lie below
	must(t, err)
	if out, err := p.ask("info", "--format", "{{.Host.NetworkBackend}}"); err != nil || strings.TrimSpace(out) != "cni" {
		t.Skipf("this podman was built without CNI, as podman 5 is: backend %q, %v", out, err)
	}
	t.Cleanup(p.kill)
	for _, image := range saveImages(t) {
		p.must(t, "load", "-q", "-i", image)
	}
	return p
}

func (p *podman) ask(args ...string) (string, error) {
	return p.Run("env", append([]string{"CONTAINERS_CONF=" + containersConf, "CONTAINERS_STORAGE_CONF=" + storageConf, "podman"}, args...)...)
}

func (p *podman) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.ask(args...)
	must(t, err)
	return strings.TrimSpace(out)
}

// kill ends what still runs.
func (p *podman) kill() {
	_ = place.Eventually(patience, func() error {
		left := p.Processes()
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(left) > 0 {
			return fmt.Errorf("%s still has processes %v", p.Name, left)
		}
		return nil
	})
}

// web is the command of a web server in a container of the pod.
func (p *podman) web(t *testing.T, pod, name string, port int) {
	t.Helper()
	p.must(t, "run", "-d", "--pod", pod, "--name", name, webImage, "lab", "web", "--container="+name, "--pod="+pod, "--port="+strconv.Itoa(port))
}

// A pod of podman has the address and the MAC that were asked for, two containers and published ports, and leaves nothing.
func TestPodman(t *testing.T) {
	l, _ := up(t)
	outside := l.Hosts["outside"].Place
	p := newPodman(t, l.Hosts["kubminion1"])
	addr, mac := netip.MustParseAddr("10.10.10.77"), "02:00:00:00:00:77"
	published := on(p.Spec.Addr.Addr(), hostPort)
	p.must(t, "pod", "create", "--name", "pod", "--hostname", "pod", "--cgroup-parent", p.Group,
		"--network", "l3edge", "--ip", addr.String(), "--mac-address", mac, "-p", fmt.Sprintf("%d:80", hostPort))
	p.must(t, "pod", "start", "pod")
	p.web(t, "pod", "web80", 80)
	p.web(t, "pod", "web8080", 8080)
	within(t, patience, "web80 is published", func() error { return answers(outside, published, "web80") })
	within(t, patience, "web8080 answers at the address asked for", func() error { return answers(outside, on(addr, 8080), "web8080") })

	t.Run("the MAC is the one asked for", func(t *testing.T) {
		got := p.must(t, "inspect", "--format", `{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}`, p.must(t, "pod", "inspect", "--format", "{{.InfraContainerID}}", "pod"))
		if want := addr.String() + " " + mac; got != want {
			t.Errorf("podman tells of %q, want %q", got, want)
		}
	})
	t.Run("the same address is refused to another pod, which leaves nothing", func(t *testing.T) {
		p.must(t, "pod", "create", "--name", "second", "--cgroup-parent", p.Group, "--network", "l3edge", "--ip", addr.String())
		_, err := p.ask("pod", "start", "second")
		if err == nil || !strings.Contains(err.Error(), "is held by pod") && !strings.Contains(err.Error(), "is held by container") {
			t.Errorf("start: %v, want to hear who holds the address", err)
		}
		p.must(t, "pod", "rm", "-f", "second")
		left, err := p.left()
		if err != nil || len(left["veths"]) != 1 || len(left["hostPort records"]) != 1 {
			t.Errorf("left: %v (%v), want what the first pod has", left, err)
		}
	})
	t.Run("a container comes back at the same address", func(t *testing.T) {
		p.must(t, "kill", "web80")
		within(t, patience, "podman notices", func() error { // podman wait takes 20 s longer
			state, err := p.ask("inspect", "--format", "{{.State.Status}}", "web80")
			if err == nil && strings.TrimSpace(state) == "running" {
				err = fmt.Errorf("state %s", state)
			}
			return err
		})
		p.must(t, "start", "web80")
		within(t, patience, "web80 is back", func() error { return answers(outside, published, "web80") })
	})
	t.Run("removed it leaves nothing", func(t *testing.T) {
		p.must(t, "pod", "rm", "-f", "-t", "0", "pod")
		p.mustBeClean(t)
		if outside.Reaches(published) == nil {
			t.Error("the published port still answers")
		}
	})
	t.Run("a pod without wishes gets an address of the node's subnet", func(t *testing.T) {
		name := p.must(t, "run", "-d", "--cgroup-parent", p.Group, "--name", "plain", "--network", "l3edge", webImage, "lab", "web", "--container=plain", "--pod=plain", "--port=8080")
		got, err := netip.ParseAddr(p.must(t, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name))
		if err != nil || !p.Spec.Pods.Contains(got) {
			t.Fatalf("address %s (%v), want one of %s", got, err, p.Spec.Pods)
		}
		within(t, patience, "it answers", func() error { return answers(outside, on(got, 8080), "plain") })
		p.must(t, "rm", "-f", "-t", "0", "plain")
		p.mustBeClean(t)
	})
}
