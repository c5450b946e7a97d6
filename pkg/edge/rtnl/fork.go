// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork makes the child; see sendByChild. It must not grow the stack, allocate or be preempted between clone and the
// child's exit, hence nosplit and raw system calls only.
//
//go:nosplit
//go:norace
func fork(fd uintptr, b []byte) unix.Errno {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return errno
	}
	// fd is never 0-2 in a process that has standard streams, and close_range(2) is older than any supported kernel.
	if fd > 0 {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, fd-1, 0)
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, fd+1, ^uintptr(0)>>32, 0)
	syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
