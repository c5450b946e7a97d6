// SPDX-License-Identifier: Apache-2.0

// Package plan divides addresses for a cluster: how long the prefix of a node is, which prefix holds all nodes, where
// services get theirs, and what a switch has to remember. It computes with IPv4 prefixes and knows no network.
package plan

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// Wish is what a cluster needs. Prefixes that are zero are chosen.
type Wish struct {
	Nodes, Pods, Services int            // at most, of the cluster, of one node, of the cluster
	Cluster, Portal       netip.Prefix   // asked for
	Avoid                 []netip.Prefix // in use elsewhere: neither cluster nor portal net may overlap
}

// Plan is the division.
type Plan struct {
	Wish      Wish         `json:"-"`
	Cluster   netip.Prefix `json:"cluster"`   // holds every node's prefix
	NodeBits  int          `json:"nodeBits"`  // length of each node's prefix
	Portal    netip.Prefix `json:"portalNet"` // service addresses
	First     netip.Prefix `json:"firstNode"`
	Last      netip.Prefix `json:"lastNode"`   // of the nodes asked for
	RoomNodes int          `json:"roomNodes"`  // how many the cluster prefix has room for
	RoomPods  int          `json:"roomPods"`   // pods of a node: without network, gateway and broadcast address
	RoomVIPs  int          `json:"roomVIPs"`   // service addresses
	Routes    int          `json:"routes"`     // entries of the switch's table: one for each node, and the portal net
	NextHops  int          `json:"nextHops"`   // of the portal net's entry, if every node announces it
	Upwards   int          `json:"upwards"`    // entries of the routers behind the switch, if it announces summaries only
	Statics   int          `json:"summarized"` // entries that the summary spares them
}

// private are the prefixes to choose from (RFC 1918), in the order in which we look: 10.10.0.0/16 as in the article is
// the first choice where it fits.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
}

// Make divides. Every impossibility is named at once.
func Make(w Wish) (Plan, error) {
	if w.Services == 0 {
		w.Services = 1 << 16
	}
	if err := w.check(); err != nil {
		return Plan{}, err
	}
	p := Plan{Wish: w, NodeBits: 32 - ceilLog2(w.Pods+3)} // besides the pods: network, gateway, broadcast
	clusterBits, portalBits := p.NodeBits-ceilLog2(w.Nodes), 32-ceilLog2(w.Services)
	if clusterBits < 8 {
		return Plan{}, fmt.Errorf("%d nodes of /%d need a /%d: more than the largest private prefix, 10.0.0.0/8, has", w.Nodes, p.NodeBits, clusterBits)
	}
	var errs []error
	var err error
	p.Cluster, err = choose("cluster", w.Cluster, clusterBits, "10.10.0.0", w.Avoid)
	errs = append(errs, err)
	avoid := w.Avoid
	if p.Cluster.IsValid() {
		avoid = append([]netip.Prefix{p.Cluster}, avoid...)
	}
	p.Portal, err = choose("portal", w.Portal, portalBits, "10.100.0.0", avoid)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return Plan{}, err
	}
	p.RoomNodes, p.RoomPods, p.RoomVIPs = 1<<(p.NodeBits-p.Cluster.Bits()), 1<<(32-p.NodeBits)-3, 1<<(32-p.Portal.Bits())
	p.First, p.Last = p.Node(0), p.Node(w.Nodes-1)
	p.Routes, p.NextHops, p.Upwards, p.Statics = w.Nodes+1, w.Nodes, 2, w.Nodes-1
	return p, nil
}

func (w Wish) check() error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(w.Nodes < 1 || w.Nodes > 1<<20, "nodes: %d is not between 1 and 1048576", w.Nodes)
	bad(w.Pods < 1 || w.Pods > 1<<16, "pods: %d is not between 1 and 65536", w.Pods)
	bad(w.Services < 1 || w.Services > 1<<20, "services: %d is not between 1 and 1048576", w.Services)
	for name, p := range map[string]netip.Prefix{"cluster": w.Cluster, "portal": w.Portal} {
		bad(p.IsValid() && !p.Addr().Is4(), "%s: %s is not IPv4", name, p)
		bad(p.IsValid() && p != p.Masked(), "%s: %s has host bits set: did you mean %s?", name, p, p.Masked())
	}
	return errors.Join(errs...)
}

// choose takes what is asked for if it fits, or the first free place: the preferred one, then any private one.
func choose(name string, asked netip.Prefix, length int, preferred string, avoid []netip.Prefix) (netip.Prefix, error) {
	if asked.IsValid() {
		if asked.Bits() > length {
			return netip.Prefix{}, fmt.Errorf("%s: %s is too small: a /%d is needed", name, asked, length)
		}
		if _, other, clash := subnet.Overlap([]netip.Prefix{asked}, avoid); clash {
			return netip.Prefix{}, fmt.Errorf("%s: %s overlaps %s: one of the two would be unreachable", name, asked, other)
		}
		return asked, nil
	}
	length = min(length, 30)
	first := netip.PrefixFrom(netip.MustParseAddr(preferred), length).Masked()
	if _, _, clash := subnet.Overlap([]netip.Prefix{first}, avoid); !clash {
		return first, nil
	}
	for _, pool := range private {
		for i := 0; length >= pool.Bits() && i < 1<<(length-pool.Bits()); i++ {
			p := nth(pool, length, i)
			_, other, clash := subnet.Overlap([]netip.Prefix{p}, avoid)
			if !clash {
				return p, nil
			}
			if other.Bits() < length { // step over all of it
				i = index(pool, length, subnet.Last(other))
			}
		}
	}
	return netip.Prefix{}, fmt.Errorf("%s: no /%d of the private prefixes is free of the networks to avoid", name, length)
}

// Node is the n-th node's prefix, from 0.
func (p Plan) Node(n int) netip.Prefix { return nth(p.Cluster, p.NodeBits, n) }

// nth is the n-th prefix of that length inside outer.
func nth(outer netip.Prefix, length, n int) netip.Prefix {
	b := number(outer.Addr()) + uint32(n)<<(32-length) //nolint:gosec // n is bounded by the room of outer
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(b >> 24), byte(b >> 16), byte(b >> 8), byte(b)}), length)
}

// index is the n of the prefix that holds a; beyond outer it is beyond all n.
func index(outer netip.Prefix, length int, a netip.Addr) int {
	if !outer.Contains(a) {
		return 1<<(length-outer.Bits()) - 1
	}
	return int((number(a) - number(outer.Addr())) >> (32 - length))
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// ceilLog2 is how many bits n things need.
func ceilLog2(n int) int { return bits.Len(uint(n - 1)) } //nolint:gosec // n is at least 1
