// SPDX-License-Identifier: Apache-2.0

package orphan

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errand is what a child does, in this order.
type errand struct {
	gaps []uintptr // the runs of descriptors to close, first and last of each, so that nobody waits for its standard output
	fd   uintptr
	b    []byte // to write to fd; none: nothing
	rest unix.Timespec
}

// fork makes the child. All signals are blocked from before clone: in the parent so that its thread is not changed
// meanwhile, in the child for good, so that no handler of the Go runtime ever runs there. It must not grow the stack,
// allocate or be preempted, hence nosplit and raw system calls only.
//
//go:nosplit
//go:norace
func fork(e *errand) unix.Errno {
	const signalSetSize = 8 // of the kernel: 64 signals
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), signalSetSize, 0, 0)
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, signalSetSize, 0, 0)
		return errno
	}
	for i := 0; i+1 < len(e.gaps); i += 2 {
		syscall.RawSyscall(unix.SYS_CLOSE_RANGE, e.gaps[i], e.gaps[i+1], 0)
	}
	if len(e.b) > 0 {
		syscall.RawSyscall(unix.SYS_WRITE, e.fd, uintptr(unsafe.Pointer(&e.b[0])), uintptr(len(e.b)))
	}
	if e.rest.Sec|e.rest.Nsec != 0 {
		syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&e.rest)), 0, 0)
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
