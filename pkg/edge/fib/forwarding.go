// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

const (
	ipForward  = "/proc/sys/net/ipv4/ip_forward"
	ip6Forward = "/proc/sys/net/ipv6/conf/all/forwarding"
	acceptRA   = "/proc/sys/net/ipv6/conf/*/accept_ra"
)

// Forwarding reports whether the calling thread's namespace forwards IPv4 packets.
func Forwarding() (bool, error) { return isOn(ipForward) }

// Forwarding6 is Forwarding for IPv6. A kernel without IPv6 does not forward it.
func Forwarding6() (bool, error) {
	on, err := isOn(ip6Forward)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return on, err
}

func isOn(file string) (bool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("read forwarding: %w", err)
	}
	return bytes.HasPrefix(b, []byte("1")), nil
}

// EnableForwarding turns it on for IPv4. The kernel resets other settings of the host when this changes, so it is done
// only when needed; changed tells.
func EnableForwarding() (changed bool, err error) {
	on, err := Forwarding()
	if err != nil || on {
		return false, err
	}
	return true, put(ipForward, "1\n")
}

// EnableForwarding6 turns it on for IPv6. A host that forwards ignores router advertisements unless accept_ra is 2, so
// where they were heeded (1) they stay so: the host must not lose its default route.
func EnableForwarding6() (changed bool, err error) {
	on, err := Forwarding6()
	if err != nil || on {
		return false, err
	}
	files, err := filepath.Glob(acceptRA)
	if err != nil {
		return false, fmt.Errorf("turn on forwarding: %w", err)
	}
	for _, f := range files {
		if heeds, err := isOn(f); err != nil || !heeds {
			continue // gone with its link, or not heeded
		}
		if err := put(f, "2\n"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	return true, put(ip6Forward, "1\n")
}

func put(file, value string) error {
	err := os.WriteFile(file, []byte(value), 0)
	if errors.Is(err, syscall.EROFS) { // a container has another way, if any
		if os.WriteFile(mark.ContainerHost+file, []byte(value), 0) == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	return nil
}
