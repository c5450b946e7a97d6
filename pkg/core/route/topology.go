// SPDX-License-Identifier: Apache-2.0

package route

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// OnLink is a directly connected prefix: that of an address of the node, or a route of the host's own to a link.
type OnLink struct {
	Prefix netip.Prefix
	Link   int // interface index
}

// Gateway is a route of the host's own, made by its administrator or by its network: what is inside Prefix goes there.
type Gateway struct {
	Prefix netip.Prefix
	Hop    NextHop
}

// Topology is what the node is connected to. Link-local prefixes are on every link and in none of its lists.
type Topology struct {
	OnLink   []OnLink
	Self     []netip.Addr   // the node's own addresses, those that are link-local left out
	Links    map[string]int // index by name of the links that are up: what the zone of a link-local address names
	Gateways []Gateway      // the default route and others of the host's own
	Lost     []netip.Addr   // gateways that do not answer, whatever the links say
}

// Equal reports that nothing changed between two readings.
func (t Topology) Equal(o Topology) bool {
	return slices.Equal(t.OnLink, o.OnLink) && slices.Equal(t.Self, o.Self) && maps.Equal(t.Links, o.Links) &&
		slices.Equal(t.Gateways, o.Gateways) && slices.Equal(t.Lost, o.Lost)
}

// Extends reports that t is o with more links, such as those of pods, and otherwise the same: whatever o resolved, t
// resolves alike.
func (t Topology) Extends(o Topology) bool {
	for name, index := range o.Links {
		if t.Links[name] != index {
			return false
		}
	}
	o.Links = t.Links
	return t.Equal(o)
}

// Resolve finds the gateway that leads to a next hop of a prefix: the next hop itself when it is on a connected link,
// else the peer that named it, else the host's own gateway towards the one or the other. The reason is not empty when
// none leads there. IPv4 may go through an IPv6 gateway (RFC 8950), IPv6 not through one of IPv4.
func (t Topology) Resolve(prefix netip.Prefix, v Via) (hop NextHop, reason string) {
	nh := v.NextHop
	switch {
	case !nh.IsValid() || nh.IsUnspecified() || nh.IsMulticast() || nh.IsLoopback():
		return NextHop{}, fmt.Sprintf("next hop %s cannot be one", nh)
	case slices.Contains(t.Self, nh):
		return NextHop{}, fmt.Sprintf("next hop %s is this node", nh)
	case t.isEverybody(nh):
		return NextHop{}, fmt.Sprintf("next hop %s is everybody on its link", nh)
	}
	if nh.IsLinkLocalUnicast() && nh.Zone() == "" && nh.Is6() { // it is on the link that leads to the peer
		if link, ok := t.link(v.Peer); ok {
			return NextHop{Gateway: nh, Link: link}, ""
		}
	}
	fits := func(gw netip.Addr) bool { return prefix.Addr().Is4() || gw.Is6() }
	for _, gw := range []netip.Addr{nh, v.Peer} {
		if link, ok := t.link(gw); ok && fits(gw) {
			if slices.Contains(t.Lost, gw) {
				return NextHop{}, fmt.Sprintf("gateway %s does not answer", gw)
			}
			return NextHop{Gateway: gw.WithZone(""), Link: link}, ""
		}
	}
	for _, gw := range []netip.Addr{nh, v.Peer} {
		if hop, ok := t.gateway(gw); ok && fits(hop.Gateway) {
			return hop, ""
		}
	}
	if prefix.Addr().Is6() && nh.Is4() {
		return NextHop{}, fmt.Sprintf("next hop %s is IPv4, and IPv6 cannot go through it", nh)
	}
	return NextHop{}, fmt.Sprintf("next hop %s is not on a connected link, nor is the peer, and no gateway leads there", nh)
}

// Neighbour is a as a next hop on the connected link that leads to it.
func (t Topology) Neighbour(a netip.Addr) (NextHop, bool) {
	link, ok := t.link(a)
	return NextHop{Gateway: a.WithZone(""), Link: link}, ok
}

// Reaches reports that a connected link leads to a.
func (t Topology) Reaches(a netip.Addr) bool {
	_, ok := t.link(a)
	return ok
}

// isEverybody reports that a is the first or the last address of an IPv4 link, which no router has (RFC 1122 section
// 3.2.1.3; links of two or one addresses have no such, RFC 3021).
func (t Topology) isEverybody(a netip.Addr) bool {
	return a.Is4() && slices.ContainsFunc(t.OnLink, func(l OnLink) bool {
		host := ^uint32(0) >> l.Prefix.Bits()
		own := l.Prefix.Bits() > 0 && l.Prefix.Bits() < 31 && l.Prefix.Contains(a)
		b := a.As4()
		n := binary.BigEndian.Uint32(b[:]) & host
		return own && (n == 0 || n == host)
	})
}

// link finds the connected link that leads to a. As in the kernel the longest of all the host's routes leads: inside a
// connected prefix there may be a longer one through a gateway.
func (t Topology) link(a netip.Addr) (int, bool) {
	if zone := a.Zone(); zone != "" {
		link, ok := t.Links[zone]
		return link, ok
	}
	best := longest(t.OnLink, a, func(l OnLink) netip.Prefix { return l.Prefix })
	if best == nil {
		return 0, false
	}
	if g := t.way(a); g != nil && g.Prefix.Bits() > best.Prefix.Bits() {
		return 0, false
	}
	return best.Link, true
}

func (t Topology) gateway(a netip.Addr) (NextHop, bool) {
	if a.IsLinkLocalUnicast() {
		return NextHop{}, false
	}
	if g := t.way(a); g != nil {
		return g.Hop, true
	}
	return NextHop{}, false
}

func (t Topology) way(a netip.Addr) *Gateway {
	return longest(t.Gateways, a, func(g Gateway) netip.Prefix { return g.Prefix })
}

// longest is the one whose prefix contains a, and of several the longest.
func longest[T any](all []T, a netip.Addr, prefix func(T) netip.Prefix) (best *T) {
	for i := range all {
		if p := prefix(all[i]); p.Contains(a) && (best == nil || p.Bits() > prefix(*best).Bits()) {
			best = &all[i]
		}
	}
	return best
}

// Resolver remembers what a Topology resolved: many prefixes share few ways.
type Resolver struct {
	topo Topology
	memo map[question]resolution
}

type question struct {
	via Via
	v4  bool // asked for an IPv4 prefix
}

type resolution struct {
	entry  Entry // of the one hop
	reason string
}

const memoLimit = 4096

// NewResolver returns a Resolver for one topology. It is not safe for concurrent use.
func NewResolver(t Topology) *Resolver { return &Resolver{topo: t, memo: map[question]resolution{}} }

func (r *Resolver) resolve(prefix netip.Prefix, v Via) resolution {
	v.Bandwidth = 0
	q := question{v, prefix.Addr().Is4()}
	if x, ok := r.memo[q]; ok {
		return x
	}
	hop, reason := r.topo.Resolve(prefix, v)
	x := resolution{reason: reason}
	if reason == "" {
		x.entry = NewEntry(hop)
	}
	if len(r.memo) >= memoLimit { // a peer that invents next hops gets no memory for it
		clear(r.memo)
	}
	r.memo[q] = x
	return x
}
