// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/conntrack"
	"github.com/l3edge/l3edge/pkg/edge/nft"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// A flow keeps its way for as long as its client goes on talking, and its client would never reach whom the port is led
// to now. Of TCP every connection is a flow of its own; of UDP and SCTP it need not be.
func lasts(m nft.Mapping) bool { return m.Protocol != service.TCP }

// Of IPv4 the node's addresses are asked about one by one, which passes over the empty places of the kernel's table of
// flows, unless they or the flows are many: then, and for IPv6, the table is read once.
const (
	fewAddrs = 32      // at a tenth of a millisecond each, and
	fewFlows = 200_000 // times addresses, at forty nanoseconds each: as long as reading a table of 262,144 places
)

// fewPorts are asked about one by one. For more the flows are read once.
const fewPorts = 32

// readOnce ends the flows to any of the ports of which which says so, reading those of a family and protocol once; done is false,
// and nothing happens, where the ports are few.
func readOnce(h *nft.HostPorts, ms []nft.Mapping, which func(nft.Mapping, conntrack.Flow) bool) (done bool, err error) {
	type kind struct {
		v4 bool
		p  service.Protocol
	}
	n, all := 0, map[kind]map[uint16][]nft.Mapping{}
	for _, m := range ms {
		if !lasts(m) {
			continue
		}
		k := kind{m.To.Addr().Is4(), m.Protocol}
		if all[k] == nil {
			all[k] = map[uint16][]nft.Mapping{}
		}
		all[k][m.HostPort] = append(all[k][m.HostPort], m)
		n++
	}
	if n <= fewPorts {
		return false, nil
	}
	var errs []error
	for k, ports := range all {
		errs = append(errs, conntrack.ForgetIf(h.Fd(), k.v4, k.p, 0, func(f conntrack.Flow) bool {
			return slices.ContainsFunc(ports[f.To.Port()], func(m nft.Mapping) bool { return which(m, f) })
		}))
	}
	return true, errors.Join(errs...)
}

// stranger says that a flow is to the port of the node, and led to nobody where that is of any address.
func stranger(m nft.Mapping, f conntrack.Flow) bool {
	if m.HostIP.IsUnspecified() {
		return f.By == f.To && local(f.To.Addr())
	}
	return f.To.Addr() == m.HostIP
}

// byPod says that a flow is by the pod.
func byPod(m nft.Mapping, f conntrack.Flow) bool {
	return f.By == m.To && (m.HostIP.IsUnspecified() || f.To.Addr() == m.HostIP)
}

func few(addrs int) bool {
	count, err := sysctl.Get("net/netfilter/nf_conntrack_count")
	flows, nerr := strconv.Atoi(count)
	return addrs <= fewAddrs && (err != nil || nerr != nil || flows*addrs <= fewFlows)
}

// forgetStrangers ends the flows to the ports that were there before these were led to the pod. Of a port on any address
// of the node those stay that another pod has, by one of the addresses.
func forgetStrangers(h *nft.HostPorts, ms []nft.Mapping) error {
	if !slices.ContainsFunc(ms, lasts) {
		return nil
	}
	if done, err := readOnce(h, ms, stranger); done {
		return err
	}
	own, err := addresses()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range ms {
		v4 := m.To.Addr().Is4()
		switch {
		case !lasts(m):
		case !m.HostIP.IsUnspecified():
			errs = append(errs, conntrack.Forget(h.Fd(), v4, conntrack.Match{Protocol: m.Protocol, To: netip.AddrPortFrom(m.HostIP, m.HostPort)}))
		case !v4 || !few(len(own)):
			errs = append(errs, conntrack.ForgetIf(h.Fd(), v4, m.Protocol, m.HostPort, func(f conntrack.Flow) bool { return stranger(m, f) }))
		default:
			for _, a := range own {
				if at := netip.AddrPortFrom(a, m.HostPort); a.Is4() == v4 {
					errs = append(errs, conntrack.Forget(h.Fd(), v4, conntrack.Match{Protocol: m.Protocol, To: at, By: at}))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// forgetOrphans ends the flows that the ports led to the pod, which is gone.
func forgetOrphans(h *nft.HostPorts, ms []nft.Mapping) error {
	if done, err := readOnce(h, ms, byPod); done {
		return err
	}
	var errs []error
	for _, m := range ms {
		if !lasts(m) {
			continue
		}
		match := conntrack.Match{Protocol: m.Protocol, To: netip.AddrPortFrom(netip.Addr{}, m.HostPort), By: m.To}
		if !m.HostIP.IsUnspecified() {
			match.To = netip.AddrPortFrom(m.HostIP, m.HostPort)
		}
		errs = append(errs, conntrack.Forget(h.Fd(), m.To.Addr().Is4(), match))
	}
	return errors.Join(errs...)
}

// addresses are the node's own, each once.
func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !slices.Contains(out, p.Addr()) {
			out = append(out, p.Addr())
		}
	}
	return out, nil
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
