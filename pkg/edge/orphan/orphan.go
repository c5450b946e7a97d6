// SPDX-License-Identifier: Apache-2.0

// Package orphan leaves a child process behind that sits out what only the kernel needs to wait for.
//
// Some system calls and some closes of a descriptor return ten or more milliseconds after their effect is there for all
// to see, because the kernel then waits for all processors to have passed a quiet point before it frees memory. A thread
// that sits in one cannot end, nor can its process. So a child makes the call, or holds the descriptor open: a copy of
// this process with one thread, in which the Go runtime does not work and that makes a few system calls and ends. It has
// nothing open but what it needs, and is the business of whoever reaps orphans.
package orphan

import (
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Write makes the child write b to fd, in one system call whose result nobody reads. It holds keep open meanwhile.
func Write(fd int, b []byte, keep ...int) error {
	return start(errand{fd: uintptr(fd), b: b}, append([]int{fd}, keep...))
}

// Hold makes the child keep fds open for that long: not less, so that closing them here is not what waits.
func Hold(d time.Duration, fds ...int) error {
	return start(errand{rest: unix.NsecToTimespec(d.Nanoseconds())}, fds)
}

func start(e errand, open []int) error {
	open = slices.Sorted(slices.Values(open))
	next := 0
	for _, fd := range open {
		if fd > next {
			e.gaps = append(e.gaps, uintptr(next), uintptr(fd-1))
		}
		next = fd + 1
	}
	e.gaps = append(e.gaps, uintptr(next), math.MaxUint32)
	if errno := fork(&e); errno != 0 {
		return errno
	}
	return nil
}
