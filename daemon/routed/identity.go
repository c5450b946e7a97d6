// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// identity is who this node is to its peers.
type identity struct {
	asn      uint32
	routerID netip.Addr
	source   netip.Addr // the address towards the first peer that there is a way to; zero when it was not needed
}

// asnBase makes a private 4-byte ASN (RFC 6996) of a router ID: unique among nodes that share a /8.
const asnBase = 4200000000

func ownASN(id netip.Addr) uint32 {
	b := id.As4()
	return asnBase + (uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
}

// findIdentity takes what is configured and finds the rest. The router ID is an earlier process's, if its address is still
// here; else the IPv4 source address towards the first peer that there is a way to; where there is none, the lowest IPv4
// address of the host; and without any, the low 32 bits of the IPv6 source address.
func findIdentity(ctx context.Context, cfg config) (identity, error) {
	id := identity{asn: cfg.asn, routerID: cfg.routerID, source: cfg.local}
	if !id.source.IsValid() && !id.routerID.IsValid() && len(cfg.peers) > 0 {
		var err error
		if id.routerID, id.source = recallIdentity(cfg); !id.source.IsValid() {
			id.source, err = sourceTowardsAny(ctx, cfg.peers)
		}
		if err != nil && len(cfg.listen) == 0 { // without a way to a peer nothing is missed; a switch is there for others
			return identity{}, err
		}
	}
	if !id.routerID.IsValid() && id.source.Is4() {
		id.routerID = id.source
	}
	if !id.routerID.IsValid() {
		addrs, err := hostAddresses(cfg.podSubnets)
		switch {
		case err != nil:
			return identity{}, err
		case len(addrs) > 0 && addrs[0].Is4(): // the lowest
			id.routerID = addrs[0]
		case id.source.IsValid():
			id.routerID = low32(id.source)
		case len(addrs) > 0:
			id.routerID = low32(addrs[0])
		default:
			return identity{}, errors.New("this host has no address yet")
		}
	}
	if id.routerID.IsUnspecified() {
		return identity{}, fmt.Errorf("%s gives no router ID, as its last 32 bits are 0: set one (--router-id=1.2.3.4)", id.source)
	}
	if id.asn == 0 {
		id.asn = ownASN(id.routerID)
	}
	return id, nil
}

// low32 is the end of an IPv6 address: unique among nodes whose addresses differ there, as numbered ones do.
func low32(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// kept is what a process leaves to the next: with two uplinks, who the node is does not hang on which of them is up first.
type kept struct {
	RouterID netip.Addr `json:"routerID"`
	Source   netip.Addr `json:"source"`
}

// identityFile lies on tmpfs.
func identityFile(cfg config) string { return filepath.Join(filepath.Dir(cfg.socket), "identity.json") }

// recallIdentity is what an earlier process kept; nothing, when its address is not this host's any more.
func recallIdentity(cfg config) (routerID, source netip.Addr) {
	var k kept
	text, err := os.ReadFile(identityFile(cfg))
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	all, err2 := link.HostPrefixes()
	if errors.Join(err, err2) != nil || !k.RouterID.Is4() || k.RouterID.IsUnspecified() ||
		!slices.ContainsFunc(all, func(h link.HostPrefix) bool { return h.Addr == k.Source }) {
		return netip.Addr{}, netip.Addr{}
	}
	return k.RouterID, k.Source
}

// sourceTowardsAny is the address that this host uses towards the first peer that there is a way to.
func sourceTowardsAny(ctx context.Context, peers []bgp.Peer) (netip.Addr, error) {
	var errs []error
	for _, p := range peers {
		a, err := sourceTowards(ctx, p)
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
	}
	return netip.Addr{}, errors.New(strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
}

// sourceTowards is the address that this host uses towards a peer.
func sourceTowards(ctx context.Context, p bgp.Peer) (netip.Addr, error) {
	if _, err := net.InterfaceByName(p.Name); p.Interface || err == nil {
		return linkLocal(p.Name)
	}
	addr, err := bgp.Resolve(ctx, p.Name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("peer %s: %w", p.Name, err)
	}
	if addr.Zone() != "" {
		return linkLocal(addr.Zone())
	}
	src, _, err := link.SourceFor(addr)
	return src, err
}

// linkLocal is the IPv6 link-local address of a link.
func linkLocal(name string) (netip.Addr, error) {
	all, err := link.HostPrefixes()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, h := range all {
		if h.Link == name && h.Addr.Is6() && h.Addr.IsLinkLocalUnicast() {
			return h.Addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("link %s has no IPv6 link-local address yet", name)
}

// hostAddresses are the host's own addresses, those inside pods left out, in order: IPv4 first.
func hostAddresses(pods []netip.Prefix) ([]netip.Addr, error) {
	all, err := link.HostPrefixes()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, h := range all {
		inPods := slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(h.Addr) })
		if !h.Addr.IsLinkLocalUnicast() && !inPods {
			out = append(out, h.Addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// nextHops are the IPv6 addresses of this host by the IPv4 prefix of the same link: what peers there can send IPv6 to.
func nextHops() (map[netip.Prefix]netip.Addr, error) {
	all, err := link.HostPrefixes()
	if err != nil {
		return nil, err
	}
	global := map[string]netip.Addr{}
	for _, h := range all {
		if h.Addr.Is6() && !h.Addr.IsLinkLocalUnicast() && !global[h.Link].IsValid() {
			global[h.Link] = h.Addr
		}
	}
	out := map[netip.Prefix]netip.Addr{}
	for _, h := range all {
		if a := global[h.Link]; h.Addr.Is4() && a.IsValid() {
			out[h.Prefix] = a
		}
	}
	return out, nil
}

// identify tries until it knows, telling each new reason once. False: ctx ended first.
func (d *wiring) identify(ctx context.Context) (identity, bool) {
	told := ""
	slow := time.AfterFunc(time.Second, func() { // a resolver may take long to give up
		if d.state.stillStarting("the resolver has not answered yet") {
			d.log.Info("waiting for the node's own address", "problem", "the resolver has not answered yet")
		}
	})
	defer slow.Stop()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		id, err := findIdentity(ctx, *d.conf.Load())
		if err == nil {
			if err := keep(identityFile(*d.conf.Load()), kept{id.routerID, id.source}); err != nil {
				d.log.Warn("cannot keep the router ID for a restart", "problem", err)
			}
			return id, true
		}
		if err.Error() != told && ctx.Err() == nil {
			told = err.Error()
			d.log.Warn("waiting for the node's own address", "problem", err)
			d.state.waiting(told)
		}
		select {
		case <-ctx.Done():
			return identity{}, false
		case <-time.After(wait):
		}
	}
}

// publish writes the node file with what is known now. A node without pods has none.
func (d *wiring) publish() {
	conf := d.conf.Load()
	if len(conf.podSubnets) == 0 {
		return
	}
	n := node.Node{Name: conf.node, PodSubnets: conf.podSubnets, Zone: conf.zone}
	for _, a := range conf.accept {
		n.ClusterPrefixes = append(n.ClusterPrefixes, a.Prefix)
	}
	addrs, err := hostAddresses(conf.podSubnets)
	if err == nil {
		if i := slices.Index(addrs, d.id.source); i > 0 { // the primary address comes first
			addrs = slices.Insert(slices.Delete(addrs, i, i+1), 0, d.id.source)
		}
		n.Addresses = addrs
		var up link.Uplink
		var ok bool
		if up, ok, err = link.DefaultUplink(unix.AF_INET); err == nil && !ok {
			up, _, err = link.DefaultUplink(unix.AF_INET6)
		}
		n.Uplink, n.MTU = up.Name, up.MTU
	}
	if err := errors.Join(err, nodefile.Write(conf.nodeFile, n)); err != nil {
		d.log.Warn("node file not up to date", "file", conf.nodeFile, "problem", err)
	}
}
