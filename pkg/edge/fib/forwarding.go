// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"bytes"
	"fmt"
	"os"
)

const ipForward = "/proc/sys/net/ipv4/ip_forward"

// Forwarding reports whether the calling thread's namespace forwards IPv4 packets.
func Forwarding() (bool, error) {
	b, err := os.ReadFile(ipForward)
	if err != nil {
		return false, fmt.Errorf("read forwarding: %w", err)
	}
	return bytes.HasPrefix(b, []byte("1")), nil
}

// EnableForwarding turns it on. The kernel resets other settings of the host when this changes, so it is done only
// when needed; changed tells.
func EnableForwarding() (changed bool, err error) {
	on, err := Forwarding()
	if err != nil || on {
		return false, err
	}
	if err := os.WriteFile(ipForward, []byte("1\n"), 0); err != nil {
		return false, fmt.Errorf("turn on forwarding: %w", err)
	}
	return true, nil
}
