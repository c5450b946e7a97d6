// SPDX-License-Identifier: Apache-2.0

package cri

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/l3edge/l3edge/pkg/lab/nest"
)

// Probe says what stands in the way of a runtime on this machine.
func Probe() error {
	if nest.NeedsUserNamespace() {
		return errors.New("containerd needs the machine's root, for control groups and devices")
	}
	for _, p := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%w: apt-get install containerd runc", err)
		}
	}
	at := filepath.Join(hierarchies()[0], fmt.Sprintf("l3edge-probe-%d", os.Getpid()))
	if err := os.Mkdir(at, 0o755); err != nil {
		return fmt.Errorf("containerd needs control groups that it may change: %w", err)
	}
	return os.Remove(at)
}

const cgroups = "/sys/fs/cgroup"

// hierarchies are the roots of the control groups: one, or one for each controller in the older version.
func hierarchies() []string {
	if _, err := os.Stat(cgroups + "/cgroup.controllers"); err == nil {
		return []string{cgroups}
	}
	dirs, _ := filepath.Glob(cgroups + "/*/cgroup.procs") // the pattern is well-formed
	for i := range dirs {
		dirs[i] = filepath.Dir(dirs[i])
	}
	return append(dirs, cgroups)
}

// MakeGroup makes the control group of that path in every hierarchy, fit for the kubelet to make others in it.
func MakeGroup(group string) error {
	var errs []error
	for _, h := range hierarchies() {
		if _, err := os.Stat(filepath.Join(h, "cgroup.procs")); err != nil {
			continue
		}
		at := h
		for _, part := range splitPath(group) {
			parent := at
			at = filepath.Join(at, part)
			if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				errs = append(errs, err)
			}
			inherit(parent, at)
		}
	}
	return errors.Join(errs...)
}

// inherit gives a group what it does not have by itself: in the older version of control groups its processors and
// memory, in the newer one its parent's controllers. Whether it was needed shows in what follows.
func inherit(parent, group string) {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if b, err := os.ReadFile(filepath.Join(parent, file)); err == nil {
			_ = os.WriteFile(filepath.Join(group, file), b, 0o644)
		}
	}
	for _, c := range []string{"+cpu", "+cpuset", "+memory", "+pids"} {
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte(c), 0o644)
	}
}

func splitPath(path string) (parts []string) {
	for p := filepath.Clean("/" + path); p != "/"; p = filepath.Dir(p) {
		parts = append(parts, filepath.Base(p))
	}
	slices.Reverse(parts)
	return parts
}

// RemoveGroup removes the control group and those in it from every hierarchy: they outlive a nest.
func RemoveGroup(group string) error {
	var errs []error
	for _, h := range hierarchies() {
		var dirs []string
		err := filepath.WalkDir(filepath.Join(h, group), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
