// SPDX-License-Identifier: Apache-2.0

package nest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// passed are the signals that go from the outer process through process 1 to the inner one.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}

// runInit is process 1: it prepares the mounts, starts the inner process, reaps, and exits with the inner one's status.
func runInit() {
	if err := prepare(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot prepare the namespaces: %v\n%s\n", err, hint())
		os.Exit(1)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	if ready := readyFile(); ready != nil {
		files = append(files, ready)
	}
	_ = os.Setenv(stageVar, stageInner) // cannot fail: the name is well-formed
	inner, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: files, Env: os.Environ()})
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot start the inner process:", err)
		os.Exit(1)
	}
	// Only the inner process shall hold the caller's files, so that whoever reads them sees their end.
	for _, f := range files {
		_ = f.Close()
	}
	go func() {
		for s := range signals {
			_ = inner.Signal(s)
		}
	}()
	// Not os.Process.Wait: orphans of the lab become children of process 1, and all must be reaped.
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid == inner.Pid {
			os.Exit(status(ws))
		}
	}
}

// status is the exit code as a shell gives it.
func status(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// prepare makes the mounts private and gives this pid and network namespace a /proc, a /sys and a /run of its own.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/run/lock"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := FreshSys(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("l3lab")); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

// FreshSys mounts a /sys that shows the calling process's network namespace and keeps the machine's control groups in it.
// Where a container runtime has hidden parts of /sys the kernel allows no other (EPERM); the old one then stays, which
// only those notice who look for links in /sys/class/net.
func FreshSys() error {
	const groups, keep = "/sys/fs/cgroup", "/run/cgroup"
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	defer os.Remove(keep) //nolint:errcheck // an empty directory at worst
	if err := unix.Mount(groups, keep, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep control groups: %w", err)
	}
	defer unix.Unmount(keep, unix.MNT_DETACH) //nolint:errcheck // a second view of them at worst
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil
		}
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount(keep, groups, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("give control groups back: %w", err)
	}
	return nil
}
