// SPDX-License-Identifier: Apache-2.0

// Package cri gives a host of the lab a containerd, and to that images which no registry has.
package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

const (
	// Socket is where containerd is asked, on its host.
	Socket = "/run/containerd/containerd.sock"
	// PauseImage is what holds a pod's namespaces: import it first.
	PauseImage = "localhost/pause:1"

	configFile = "/etc/containerd/config.toml"
	patience   = time.Minute // how long anything may take: a busy machine is no reason to fail
)

// Runtime is a containerd on a host.
type Runtime struct {
	*lab.Host
	Daemon *place.Process // nil until started
	Group  string         // control group, from the root on, in which all of the host's pods live
}

// Install gives the host what containerd needs; group is the control group that the pods of all hosts live in.
func Install(h *lab.Host, group string) (*Runtime, error) {
	r := &Runtime{Host: h, Group: "/" + group + "/" + h.Name}
	if err := h.WriteFile(configFile, config(filepath.Join(lab.Dir, "containerd", h.Name))); err != nil {
		return nil, err
	}
	_, err := h.Run("mount", "-t", "tmpfs", "cni", "/var/lib/cni") // the machine's own results lie below
	return r, err
}

// config is containerd's: its state is lost with /run, its root survives a reboot. The root lies on the lab's tmpfs and
// not under /var/lib, which is an overlay already, and the kernel takes no overlay as another's upper half.
func config(root string) string {
	return `version = 2
root = "` + root + `"
state = "/run/containerd"
[grpc]
  address = "` + Socket + `"
[plugins."io.containerd.internal.v1.opt"]
  path = "` + root + `/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + PauseImage + `"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`
}

// File is where this process sees a file of the host.
func (r *Runtime) File(path string) string { return fmt.Sprintf("/proc/%d/root%s", r.Pid, path) }

// Start starts containerd and waits until it answers. Plugins inherit its environment: it gets none of the caller's.
func (r *Runtime) Start() error {
	var err error
	if r.Daemon, err = r.Host.Start("containerd", "env", "-i", "HOME=/root", "PATH="+lab.Path, "containerd", "-c", configFile); err != nil {
		return err
	}
	var dead error
	err = place.Eventually(patience, func() error {
		if _, dead = r.Daemon.Running(); dead != nil {
			return nil
		}
		_, err := r.Run("ctr", "-a", Socket, "version")
		return err
	})
	if dead != nil {
		return dead
	}
	return err
}

// Import gives containerd the image in the archive, a file that the host sees.
func (r *Runtime) Import(archive string) error {
	_, err := r.Run("ctr", "-a", Socket, "-n", "k8s.io", "images", "import", "--snapshotter", "overlayfs", archive)
	return err
}

// Kill ends containerd, its shims and all containers of the host at once, as a power cut does.
func (r *Runtime) Kill() error {
	if r.Daemon != nil {
		r.Daemon.Kill()
	}
	return place.Eventually(patience, func() error {
		left := r.Processes()
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		if len(left) > 0 {
			return fmt.Errorf("%s still has processes %v", r.Name, left)
		}
		return nil
	})
}

// Processes are the living shims (podman: conmons) and containers of the host: those whose mount namespace or control
// group is its.
func (r *Runtime) Processes() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", r.Pid))
	for _, proc := range procs {
		command, _ := os.ReadFile(proc + "/cmdline") // empty for zombies
		groups, _ := os.ReadFile(proc + "/cgroup")
		mnt, _ := os.Readlink(proc + "/ns/mnt")
		exe, _, _ := strings.Cut(string(command), "\x00")
		shim := mnt == own && slices.Contains([]string{"containerd-shim-runc-v2", "conmon"}, filepath.Base(exe))
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil && len(command) > 0 && (shim || strings.Contains(string(groups), r.Group+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}
