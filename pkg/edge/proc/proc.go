// SPDX-License-Identifier: Apache-2.0

// Package proc tells which processes share a pod's network namespace: its pause and its containers.
package proc

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// Fill gives every living pod its processes, in one walk of /proc. A process that goes meanwhile is left out.
func Fill(pods []view.Pod) error {
	at := map[[2]uint64]int{}
	for i, p := range pods {
		if key, ok := identity(p.Netns); ok && p.Alive {
			at[key] = i
		}
	}
	if len(at) == 0 {
		return nil
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		key, ok := identity(filepath.Join("/proc", d.Name(), "ns/net"))
		if i, of := at[key]; ok && of {
			pods[i].Processes = append(pods[i].Processes, view.Process{Pid: pid, Name: name(d.Name())})
		}
	}
	for i := range pods {
		slices.SortFunc(pods[i].Processes, func(a, b view.Process) int { return cmp.Compare(a.Pid, b.Pid) })
	}
	return nil
}

func identity(path string) ([2]uint64, bool) {
	var st unix.Stat_t
	if path == "" || unix.Stat(path, &st) != nil {
		return [2]uint64{}, false
	}
	return [2]uint64{st.Dev, st.Ino}, true
}

// name is the program with the flag --container or --name that tells containers of one program apart, where it has one.
func name(pid string) string {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil || len(text) == 0 {
		return "?"
	}
	args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
	for _, a := range args[1:] {
		for _, flag := range []string{"--container=", "--name="} {
			if v, ok := strings.CutPrefix(a, flag); ok {
				return v
			}
		}
	}
	return filepath.Base(args[0])
}
