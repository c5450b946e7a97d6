// SPDX-License-Identifier: Apache-2.0

// Package sysctl reads and writes kernel settings under /proc/sys, those under net in the calling thread's namespace.
package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

// Get returns the value of a setting named by its path, such as "net/ipv4/ip_forward". The path form is used because
// interface names may hold dots. The error is fs.ErrNotExist (errors.Is) when this kernel does not have it.
func Get(name string) (string, error) {
	fd, err := unix.Open("/proc/sys/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var buf [256]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return string(bytes.TrimSpace(buf[:max(n, 0)])), nil
}

// Ensure makes the setting value, writing only when it is not so already: many writes walk every interface.
func Ensure(name, value string) error {
	if have, err := Get(name); err != nil || have == value {
		return err
	}
	return Set(name, value)
}

// Set writes the setting without looking, for what has just been made and is not set yet.
func Set(name, value string) error {
	fd, err := unix.Open("/proc/sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EROFS) { // a container has another way, if any
		if there, e := unix.Open(mark.ContainerHost+"/proc/sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0); e == nil {
			fd, err = there, nil
		}
	}
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, err)
	}
	_, err = unix.Write(fd, []byte(value))
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", name, value, err)
	}
	return nil
}

// EnsureIfPresent is Ensure, and reports false where this kernel does not have the setting.
func EnsureIfPresent(name, value string) (bool, error) {
	err := Ensure(name, value)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
