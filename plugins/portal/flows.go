// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/conntrack"
	"github.com/l3edge/l3edge/pkg/edge/nft"
)

// forget ends those UDP flows to the ports that which names: a flow keeps its way for as long as its client goes on
// talking, and its client would never reach whom the port is led to now.
func forget(h *nft.HostPorts, ms []nft.Mapping, which func(nft.Mapping, conntrack.Flow) bool) error {
	var errs []error
	for _, m := range ms {
		if m.Protocol == service.UDP {
			errs = append(errs, conntrack.Forget(h.Fd(), m.To.Addr().Is4(), m.HostPort, func(f conntrack.Flow) bool { return which(m, f) }))
		}
	}
	return errors.Join(errs...)
}

// strangers are flows to a port of the node that were there before it was led to the pod.
func strangers(m nft.Mapping, f conntrack.Flow) bool {
	return f.By != m.To && (f.To.Addr() == m.HostIP || m.HostIP.IsUnspecified() && local(f.To.Addr()))
}

// orphaned are flows that the port led to the pod, which is gone.
func orphaned(m nft.Mapping, f conntrack.Flow) bool {
	return f.By == m.To && (f.To.Addr() == m.HostIP || m.HostIP.IsUnspecified())
}

// local reports an address of the node: one that a socket may have. With net.ipv4.ip_nonlocal_bind that is any.
func local(a netip.Addr) bool {
	family, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: a.As16()})
	if a.Is4() {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // never used
	return unix.Bind(fd, at) == nil
}
