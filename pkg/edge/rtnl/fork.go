// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork makes the child of sendByChild. All signals are blocked from before clone: in the parent so that its thread is not
// changed meanwhile, in the child for good, so that no handler of the Go runtime ever runs there. It must not grow the
// stack, allocate or be preempted, hence nosplit and raw system calls only. The child first closes everything but the
// socket, so that nobody waits for its standard output.
//
//go:nosplit
//go:norace
func fork(fd uintptr, b []byte) unix.Errno {
	const signalSetSize = 8 // of the kernel: 64 signals
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), signalSetSize, 0, 0)
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, signalSetSize, 0, 0)
		return errno
	}
	if fd > 0 {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 0, fd-1, 0)
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, fd+1, ^uintptr(0)>>32, 0)
	syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
