// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Down ends every program of the lab and clears the nest for the next one. It never fails: what it cannot clear ends
// with the nest, and the next Up says what is in its way.
func (l *Lab) Down() {
	hosts := []*Host{}
	if l.MLS != nil {
		hosts = append(hosts, l.MLS.Host)
	}
	for _, h := range l.Hosts {
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		for _, p := range h.procs {
			p.Kill()
		}
		for _, p := range h.pods {
			_ = syscall.Kill(p.Info.Pause, syscall.SIGKILL)
			_ = p.Net.Close()
		}
		_ = syscall.Kill(h.Pid, syscall.SIGKILL)
		_ = h.Net.Close()
		_ = h.mnt.Close()
		_ = h.uts.Close()
		_ = unix.Unmount("/run/netns/"+h.Name, unix.MNT_DETACH)
		_ = unix.Unlink("/run/netns/" + h.Name)
	}
	_ = unix.Unmount("/etc", unix.MNT_DETACH)
	_ = unix.Unmount(Dir, unix.MNT_DETACH) // and what is mounted on it
}
