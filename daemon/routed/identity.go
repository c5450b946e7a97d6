// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	source   netip.Addr // the address towards the first peer; zero when it was not needed
}

// asnBase makes a private 4-byte ASN (RFC 6996) of a router ID: unique among nodes that share a /8.
const asnBase = 4200000000

func ownASN(id netip.Addr) uint32 {
	b := id.As4()
	return asnBase + (uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]))
}

// findIdentity takes what is configured and finds the rest: the source address towards the first peer, or, without a
// peer, the lowest address of the host.
func findIdentity(ctx context.Context, cfg config) (identity, error) {
	id := identity{asn: cfg.asn, routerID: cfg.routerID, source: cfg.local}
	if !id.routerID.IsValid() {
		id.routerID = cfg.local
	}
	if !id.routerID.IsValid() && len(cfg.peers) > 0 {
		addr, err := bgp.Resolve(ctx, cfg.peers[0].Name)
		if err != nil {
			return identity{}, fmt.Errorf("peer %s: %w", cfg.peers[0].Name, err)
		}
		src, _, err := link.SourceFor(addr)
		if err != nil {
			return identity{}, err
		}
		id.routerID, id.source = src, src
	}
	if !id.routerID.IsValid() {
		addrs, err := hostAddresses(cfg.podSubnets)
		if err != nil {
			return identity{}, err
		}
		if len(addrs) == 0 {
			return identity{}, errors.New("this host has no IPv4 address yet")
		}
		id.routerID = addrs[0]
	}
	if id.asn == 0 {
		id.asn = ownASN(id.routerID)
	}
	return id, nil
}

// hostAddresses are the host's own IPv4 addresses, those inside pods left out, in order.
func hostAddresses(pods []netip.Prefix) ([]netip.Addr, error) {
	all, err := link.HostPrefixes()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, h := range all {
		inPods := slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(h.Addr) })
		if h.Addr.Is4() && !h.Addr.IsLinkLocalUnicast() && !inPods {
			out = append(out, h.Addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// identify tries until it knows, telling each new reason once. False: ctx ended first.
func (d *wiring) identify(ctx context.Context) (identity, bool) {
	told := ""
	slow := time.AfterFunc(time.Second, func() { // a resolver may take long to give up
		d.log.Info("looking up the peers to find the node's own address")
	})
	defer slow.Stop()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		id, err := findIdentity(ctx, *d.conf.Load())
		if err == nil {
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
	n := node.Node{Name: conf.node, PodSubnets: conf.podSubnets}
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
		if up, _, err = link.DefaultUplink(unix.AF_INET); err == nil {
			n.Uplink, n.MTU = up.Name, up.MTU
		}
	}
	if err := errors.Join(err, nodefile.Write(conf.nodeFile, n)); err != nil {
		d.log.Warn("node file not up to date", "file", conf.nodeFile, "problem", err)
	}
}
