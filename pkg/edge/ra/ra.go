// SPDX-License-Identifier: Apache-2.0

// Package ra finds the router at the other end of a link, and lets it find us: router solicitations and advertisements
// (RFC 4861) on raw ICMPv6 sockets, which need CAP_NET_RAW.
package ra

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv6"
)

const (
	icmpv6       = "ip6:ipv6-icmp"
	solicitation = 133 // ICMPv6 types, RFC 4861 section 4
	advertising  = 134
	hopLimit     = 255 // what came through a router has less, and is not believed
	patience     = time.Second
)

var (
	allNodes   = net.ParseIP("ff02::1")
	allRouters = net.ParseIP("ff02::2")
)

// ErrSilent means that no router has been heard on the link in a second.
var ErrSilent = errors.New("no router advertisement heard")

// Neighbor asks who is the router on the link and waits up to a second for the answer, an address whose zone is the link's
// name. The other end hears of us meanwhile, whenever it asks, so that two who both ask find each other.
func Neighbor(ctx context.Context, link string) (netip.Addr, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find link %s: %w", link, err)
	}
	own, err := linkLocal(i)
	if err != nil {
		return netip.Addr{}, err
	}
	raw, err := net.ListenPacket(icmpv6, "::") // not its own address, which may be tentative yet
	if err != nil {
		return netip.Addr{}, fmt.Errorf("open ICMPv6 socket: %w", err)
	}
	defer func() { _ = raw.Close() }()
	c := ipv6.NewPacketConn(raw)
	if err := prepare(c, i); err != nil {
		return netip.Addr{}, fmt.Errorf("prepare ICMPv6 socket on %s: %w", link, err)
	}
	if err := errors.Join(send(c, i, advertisement(i.HardwareAddr), allNodes), send(c, i, solicit(i.HardwareAddr), allRouters)); err != nil {
		return netip.Addr{}, fmt.Errorf("ask for routers on %s: %w", link, err)
	}
	return hear(ctx, c, i, own)
}

func send(c *ipv6.PacketConn, i *net.Interface, m []byte, to net.IP) error {
	_, err := c.WriteTo(m, nil, &net.IPAddr{IP: to, Zone: i.Name})
	return err
}

func linkLocal(i *net.Interface) (netip.Addr, error) {
	addrs, err := i.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of %s: %w", i.Name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			return p.Addr().WithZone(i.Name), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no IPv6 link-local address: is it up, and IPv6 on?", i.Name)
}

// prepare lets the socket send as RFC 4861 section 6.1 wants it, and receive what it defines only.
func prepare(c *ipv6.PacketConn, i *net.Interface) error {
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterAdvertisement)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	return errors.Join(
		c.SetICMPFilter(&f),
		c.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		c.SetHopLimit(hopLimit), c.SetMulticastHopLimit(hopLimit),
		c.SetMulticastInterface(i), c.SetMulticastLoopback(false), c.JoinGroup(i, &net.IPAddr{IP: allNodes}), c.JoinGroup(i, &net.IPAddr{IP: allRouters}),
		c.SetChecksum(true, 2), // the kernel fills it in
	)
}

// hear waits for somebody else's advertisement, and answers who asks for ours.
func hear(ctx context.Context, c *ipv6.PacketConn, i *net.Interface, own netip.Addr) (netip.Addr, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return netip.Addr{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 1500)
	for {
		n, meta, from, err := c.ReadFrom(buf)
		var timeout net.Error
		switch {
		case ctx.Err() != nil:
			return netip.Addr{}, ctx.Err()
		case errors.As(err, &timeout) && timeout.Timeout():
			return netip.Addr{}, fmt.Errorf("%s: %w: the other end must send them (FRR does where the neighbor is an interface)", i.Name, ErrSilent)
		case err != nil:
			return netip.Addr{}, fmt.Errorf("hear routers on %s: %w", i.Name, err)
		}
		addr, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		valid := ok && meta != nil && meta.HopLimit == hopLimit && meta.IfIndex == i.Index && addr != own.WithZone("")
		switch {
		case valid && n >= 8 && buf[0] == solicitation:
			if err := send(c, i, advertisement(i.HardwareAddr), allNodes); err != nil {
				return netip.Addr{}, fmt.Errorf("answer on %s: %w", i.Name, err)
			}
		case valid && n >= 16 && buf[0] == advertising && addr.IsLinkLocalUnicast():
			return addr.WithZone(i.Name), nil
		}
	}
}

// advertisement says that a router is here (RFC 4861 section 4.2): one to peer with, and not to send everything to, as its
// lifetime is that of a few seconds, and its preference low (RFC 4191).
func advertisement(mac net.HardwareAddr) []byte {
	const lifetime, low = 9, 0b11 << 3
	m := []byte{advertising, 0, 0, 0, 0, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(m[6:], lifetime)
	return source(m, mac)
}

func solicit(mac net.HardwareAddr) []byte {
	return source([]byte{solicitation, 0, 0, 0, 0, 0, 0, 0}, mac)
}

// source adds our link-layer address (RFC 4861 section 4.6.1).
func source(m []byte, mac net.HardwareAddr) []byte {
	if len(mac) != 6 {
		return m
	}
	return append(append(m, 1, 1), mac...)
}
