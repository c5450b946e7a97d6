// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/lab/nest"
)

// Where the lab keeps its things, inside the nest and in every host of it.
const (
	Dir     = "/run/l3lab"
	binDir  = Dir + "/bin"     // copies of our programs: a rebuild does not disturb a running lab
	baseDir = Dir + "/machine" // the machine's own directories, below the overlays
	hostDir = Dir + "/hosts"   // NAME/LAYER: the overlays' upper halves
	logDir  = Dir + "/log"     // NAME/PROGRAM.log
)

// Path is where programs are found on every host: ours first.
const Path = binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + frrPath

// Program is where a program of ours lies inside the nest and on every host.
func Program(name string) string { return filepath.Join(binDir, name) }

// layers are the directories in which every host has files of its own, on top of the machine's.
// Their names, without slashes, are the directories under baseDir and hostDir/NAME.
var layers = map[string]string{"etc": "/etc", "opt": "/opt", "lib": "/var/lib"}

// BecomeHost turns the calling process into the host called name: it must have been started in new network, mount and
// UTS namespaces. It gives the host its own directories, /run, /sys, loopback and host name, and becomes its pause.
func BecomeHost(name string) error {
	for layer := range layers {
		if err := overlay(name, layer); err != nil {
			return err
		}
	}
	if err := ownRun(); err != nil {
		return err
	}
	if err := nest.FreshSys(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	pause := Program("pause")
	unix.CloseOnExec(unix.Stderr) // its end tells the lab that the host stands
	return fmt.Errorf("run %s: %w", pause, unix.Exec(pause, []string{"pause"}, os.Environ()))
}

// keepBase makes the machine's own directories reachable below the overlays to come. The hosts' overlays stand on these
// and not on the nest's: the kernel stacks only two overlays, and in a container the machine's root is the first.
func keepBase() error {
	for layer, path := range layers {
		at := filepath.Join(baseDir, layer)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(path, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
	}
	return nil
}

// overlay mounts the host's own half over one of the machine's directories. Files that the host shall have from the
// start are already in the upper half: in a user namespace the machine's files belong to nobody and cannot be changed.
func overlay(host, layer string) error {
	upper := filepath.Join(hostDir, host, layer)
	work := upper + ".work"
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", filepath.Join(baseDir, layer), upper, work)
	if inUserNamespace() {
		options += ",userxattr"
	}
	if err := unix.Mount("overlay", layers[layer], "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay on %s (in a user namespace this needs Linux 5.11; root needs none): %w", layers[layer], err)
	}
	return nil
}

// ownRun mounts an empty /run that still shows the lab's directory.
func ownRun() error {
	keep, err := os.Open(Dir)
	if err != nil {
		return err
	}
	defer keep.Close() //nolint:errcheck // a directory
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, d := range []string{Dir, "/run/netns", "/run/lock"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", keep.Fd()), Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", Dir, err)
	}
	return nil
}

// inUserNamespace reports whether the process lives in any user namespace but the machine's first.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, size uint32
	if err == nil {
		_, err = fmt.Sscan(string(b), &inside, &outside, &size)
	}
	return err == nil && size != ^uint32(0)
}
