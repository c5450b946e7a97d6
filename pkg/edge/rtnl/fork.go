// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork makes the child of sendByChild. All signals are blocked from before clone: in the parent so that its thread is not
// changed meanwhile, in the child for good, so that no handler of the Go runtime ever runs there. It must not grow the
// stack, allocate or be preempted, hence nosplit and raw system calls only. The child first closes the descriptors in
// gaps, first and last of each run, so that nobody waits for its standard output.
//
//go:nosplit
//go:norace
func fork(fd uintptr, b []byte, gaps []uintptr) unix.Errno {
	const signalSetSize = 8 // of the kernel: 64 signals
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), signalSetSize, 0, 0)
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, signalSetSize, 0, 0)
		return errno
	}
	for i := 0; i+1 < len(gaps); i += 2 {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, gaps[i], gaps[i+1], 0)
	}
	syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
