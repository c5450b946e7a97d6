// SPDX-License-Identifier: Apache-2.0

// Package conntrack ends the kernel's memory of flows whose other end is gone, so that the next packet is led anew.
package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ForgetPort deletes the UDP flows of the calling thread's namespace that were sent to the port. A flow that lived
// before the port was led to a pod would otherwise keep its way for as long as its client goes on talking.
func ForgetPort(v4 bool, port uint16) error {
	return forget(v4, func(f *netlink.ConntrackFilter) error {
		return f.AddPort(netlink.ConntrackOrigDstPort, port)
	})
}

// ForgetPod deletes the UDP flows that a pod was answering behind another address.
func ForgetPod(pod netip.Addr) error {
	return forget(pod.Is4(), func(f *netlink.ConntrackFilter) error {
		return f.AddIP(netlink.ConntrackReplySrcIP, pod.AsSlice())
	})
}

func forget(v4 bool, more func(*netlink.ConntrackFilter) error) error {
	f := &netlink.ConntrackFilter{}
	if err := errors.Join(f.AddProtocol(unix.IPPROTO_UDP), more(f)); err != nil {
		return fmt.Errorf("forget flows: %w", err)
	}
	family := netlink.InetFamily(unix.AF_INET)
	if !v4 {
		family = unix.AF_INET6
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
		return fmt.Errorf("forget flows: %w", err)
	}
	return nil
}
