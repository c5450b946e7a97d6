// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Down ends every program of the lab and clears the nest for the next one. It never fails: what it cannot clear ends
// with the nest, and the next Up says what is in its way.
func (l *Lab) Down() {
	for _, h := range l.all() {
		for _, p := range h.pods {
			_ = syscall.Kill(p.Info.Pause, syscall.SIGKILL)
			_ = p.Net.Close()
		}
		h.Clear()
		_ = syscall.Kill(h.Pid, syscall.SIGKILL)
		_ = unix.Unmount("/run/netns/"+h.Name, unix.MNT_DETACH)
		_ = unix.Unlink("/run/netns/" + h.Name)
	}
	_ = unix.Unmount("/etc", unix.MNT_DETACH)
	_ = unix.Unmount(Dir, unix.MNT_DETACH) // and what is mounted on it
}

// all are the hosts that stand, the switch first.
func (l *Lab) all() []*Host {
	var out []*Host
	if l.MLS != nil {
		out = append(out, l.MLS.Host)
	}
	for _, spec := range l.Topology.Hosts {
		if h := l.Hosts[spec.Name]; h != nil {
			out = append(out, h)
		}
	}
	return out
}
