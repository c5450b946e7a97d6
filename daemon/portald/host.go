// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// readNode returns what the node file says and, after the addresses that it names, the host's others. A missing file is no
// error: the node is known by its host name then, and its first address is the uplink's.
func readNode(path string) (n node.Node, missing bool, err error) {
	if n, missing, err = readNodeFile(path); err != nil {
		return n, missing, err
	}
	host, err := link.HostPrefixes()
	if err == nil {
		n.Addresses, err = ownAddresses(n, host)
	}
	return n, missing, err
}

func readNodeFile(path string) (n node.Node, missing bool, err error) {
	n, err = nodefile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		name, err := os.Hostname()
		return node.Node{Name: name}, true, err
	}
	return n, false, err
}

// ownAddresses lists the node's addresses: those that n names, then the one by which others reach it, then all others that
// are no pod bridge's.
func ownAddresses(n node.Node, host []link.HostPrefix) ([]netip.Addr, error) {
	out := slices.Clone(n.Addresses)
	add := func(a netip.Addr) {
		if _, pods := n.Owns(a); !pods && !a.IsLinkLocalUnicast() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, v4 := range []bool{true, false} {
		addr, ok, err := hostAddr(v4, n)
		if err != nil {
			return nil, err
		}
		if ok {
			add(addr)
		}
	}
	for _, h := range host {
		add(h.Addr)
	}
	return out, nil
}

// nodeNews tells whether the node file or the host's addresses have changed since it was asked last.
type nodeNews struct {
	path string
	file node.Node
	host []link.HostPrefix
	n    int
}

// ask looks at the addresses less often: the kernel lists all links to tell them.
func (w *nodeNews) ask() (news bool, err error) {
	file, _, err := readNodeFile(w.path)
	if err != nil {
		return false, err
	}
	host := w.host
	if w.n++; w.n%5 == 1 {
		if host, err = link.HostPrefixes(); err != nil {
			return false, err
		}
	}
	news = !slices.Equal(file.Encode(), w.file.Encode()) || !slices.Equal(host, w.host)
	w.file, w.host = file, host
	return news, nil
}

// checkNets refuses portal nets that overlap what the node and its host have now.
func checkNets(nets []netip.Prefix, n node.Node) error {
	host, err := link.HostPrefixes()
	if err != nil {
		return err
	}
	return overlaps(nets, n, host)
}

// ensureReachable gives the node itself a way to the portal nets where it has none, as on a host without default route.
func ensureReachable(log *slog.Logger, nets []netip.Prefix, n node.Node) error {
	for _, p := range nets {
		addr, ok, err := hostAddr(p.Addr().Is4(), n)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		added, err := link.EnsureReachable(p, addr, mark.RoutePortald)
		if err != nil {
			return err
		}
		if added {
			log.Info("added route to the portal net", "prefix", p.String(), "source", addr.String())
		}
	}
	return nil
}

// hostAddr is nodeAddr for this host as it is now.
func hostAddr(v4 bool, n node.Node) (addr netip.Addr, ok bool, err error) {
	host, err := link.HostPrefixes()
	if err != nil {
		return netip.Addr{}, false, err
	}
	family := unix.AF_INET6
	if v4 {
		family = unix.AF_INET
	}
	uplink, _, err := link.DefaultUplink(family)
	if err != nil {
		return netip.Addr{}, false, err
	}
	addr, ok = nodeAddr(v4, n, host, uplink.Name)
	return addr, ok, nil
}

// overlaps reports every portal net that shares addresses with this node's or the cluster's pods, or with a subnet that
// the host is attached to: such a net would hide real machines behind services. Each report names both.
func overlaps(nets []netip.Prefix, n node.Node, host []link.HostPrefix) error {
	var errs []error
	for _, net := range nets {
		report := func(p netip.Prefix, what string) {
			if net.Overlaps(p) {
				errs = append(errs, fmt.Errorf("--portal-net: %s overlaps %s %s", net, what, p))
			}
		}
		for _, p := range n.PodSubnets {
			report(p, "the pod subnet")
		}
		for _, p := range n.ClusterPrefixes {
			if !slices.Contains(n.PodSubnets, p) {
				report(p, "the cluster's pod prefix")
			}
		}
		for _, h := range host {
			if !h.Addr.IsLinkLocalUnicast() && !slices.Contains(n.PodSubnets, h.Prefix) {
				report(h.Prefix, fmt.Sprintf("the host subnet of %s,", h.Link))
			}
		}
	}
	return errors.Join(errs...)
}

// nodeAddr chooses the address by which the node's own traffic finds the proxy: the first of the node file's that the
// host has, else one on the uplink, else any but a pod bridge's. ok is false when the host has none of the family.
func nodeAddr(v4 bool, n node.Node, host []link.HostPrefix, uplink string) (addr netip.Addr, ok bool) {
	var have []link.HostPrefix
	for _, h := range host {
		if h.Addr.Is4() == v4 && !h.Addr.IsLinkLocalUnicast() {
			have = append(have, h)
		}
	}
	for _, want := range n.Addresses {
		if slices.ContainsFunc(have, func(h link.HostPrefix) bool { return h.Addr == want }) {
			return want, true
		}
	}
	rank := func(h link.HostPrefix) int {
		_, pods := n.Owns(h.Addr)
		switch {
		case h.Link == uplink:
			return 0
		case !pods:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(have, func(a, b link.HostPrefix) int { return cmp.Compare(rank(a), rank(b)) })
	if len(have) == 0 {
		return netip.Addr{}, false
	}
	return have[0].Addr, true
}

// maxConns is how many connections of the proxy the process has file descriptors for: six each, a socket and the two ends of
// splice(2)'s pipe for each direction, and some must be left for everything else.
func maxConns() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("read limit of open files: %w", err)
	}
	n := int(min(r.Cur, 1<<30)) //nolint:gosec // bounded
	return max(1, (n-min(200, n/4))/6), nil
}
