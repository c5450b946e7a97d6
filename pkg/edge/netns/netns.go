// SPDX-License-Identifier: Apache-2.0

// Package netns opens, makes, enters and leaves network namespaces without ever leaving a Go thread in the wrong one.
//
// The trap: a namespace belongs to a thread, goroutines move between threads, and a thread that could not be brought
// back would later run somebody else's goroutine in the wrong namespace. So Do runs its function on a goroutine of its
// own, locked to its thread, and lets the runtime destroy the thread whenever coming back failed.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Handle keeps one network namespace alive and enterable until Close.
type Handle struct {
	fd   int
	path string
}

// Open opens the namespace at path (/run/netns/NAME, /proc/PID/ns/net). The error is fs.ErrNotExist (errors.Is) when
// nothing is there; a file that is no namespace is an error too, so that a stale mount point is told apart.
func Open(path string) (*Handle, error) {
	// Not an os.File, which the runtime's poller would have to hear of.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open netns %s: %w", path, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open netns %s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open netns %s: not a namespace", path)
	}
	return &Handle{fd: fd, path: path}, nil
}

// Current opens the calling thread's namespace.
func Current() (*Handle, error) {
	const path = "/proc/thread-self/ns/net"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open netns %s: %w", path, err)
	}
	return &Handle{fd: fd, path: path}, nil
}

// New makes an empty namespace that lives until the last handle, process or mount of it is gone.
// Its loopback is down, as the kernel makes it.
func New() (*Handle, error) {
	var h *Handle
	err := onThread(func() (back func() error, err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return nil, fmt.Errorf("new netns: %w", err)
		}
		h, err = Current()
		return nil, err
	})
	return h, err
}

// Do runs f inside the namespace, on a thread of its own, and returns f's error. Goroutines that f starts run outside.
func (h *Handle) Do(f func() error) error {
	return onThread(func() (func() error, error) {
		home, err := Current()
		if err != nil {
			return nil, err
		}
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			_ = home.Close()
			return nil, fmt.Errorf("enter netns %s: %w", h.path, err)
		}
		back := func() error {
			defer home.Close() //nolint:errcheck // a read-only handle
			return unix.Setns(home.fd, unix.CLONE_NEWNET)
		}
		return back, f()
	})
}

// Here is Do on the calling thread, for a process that lives too short a time to hand work to another thread. An error
// that says "leave netns" means that the thread is still inside; the goroutine stays locked to it then and should end.
func (h *Handle) Here(f func() error) error {
	runtime.LockOSThread()
	home, err := Current()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close() //nolint:errcheck // a read-only handle
	if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter netns %s: %w", h.path, err)
	}
	ferr := f()
	if err := unix.Setns(home.fd, unix.CLONE_NEWNET); err != nil {
		return errors.Join(ferr, fmt.Errorf("leave netns %s: %w", h.path, err))
	}
	runtime.UnlockOSThread()
	return ferr
}

// Same reports whether both handles are open on one namespace.
func (h *Handle) Same(o *Handle) (bool, error) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(h.Fd(), &a), unix.Fstat(o.Fd(), &b)); err != nil {
		return false, fmt.Errorf("compare netns: %w", err)
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// Mount pins the namespace at path (as ip netns add does), so that it lives without a process. Unmount undoes it.
func (h *Handle) Mount(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("mount netns: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("mount netns: %w", err)
	}
	_ = f.Close()
	if err := unix.Mount(h.Path(), path, "none", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("mount netns at %s: %w", path, err)
	}
	return nil
}

// Unmount removes what Mount made. The namespace goes when nothing else holds it.
func Unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount netns %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("unmount netns: %w", err)
	}
	return nil
}

// Path names the namespace for other processes as long as this process and the handle live.
func (h *Handle) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.fd) }

// Fd is the open file descriptor, valid until Close.
func (h *Handle) Fd() int { return h.fd }

// Close lets go of the namespace. A second one is an error, and does not close whatever got the number meanwhile.
func (h *Handle) Close() error {
	fd := h.fd
	h.fd = -1
	return unix.Close(fd)
}

// onThread runs f on a locked thread. When f gives a way back and it works, the thread is returned to the runtime;
// otherwise the goroutine ends locked, and the runtime destroys the thread with it.
func onThread(f func() (back func() error, err error)) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		back, err := f()
		if back != nil && back() == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
