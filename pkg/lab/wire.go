// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// Uplink is the interface of every host.
const Uplink = "ens18"

// wire makes the switch's segments and plugs every host in. The switch forwards. The nodes do not: that is for
// bridge-l3 to turn on, and a new namespace may have inherited it from the machine.
func (l *Lab) wire() error {
	if err := l.MLS.Net.Do(func() error {
		for _, s := range l.Topology.Segments {
			if err := addSegment(s); err != nil {
				return fmt.Errorf("segment %s: %w", s.Bridge, err)
			}
		}
		return sysctl("net/ipv4/ip_forward", "1")
	}); err != nil {
		return fmt.Errorf("wire %s: %w", topology.MLSName, err)
	}
	for _, spec := range l.Topology.Hosts {
		if err := l.plug(spec); err != nil {
			return fmt.Errorf("wire %s: %w", spec.Name, err)
		}
	}
	return nil
}

func addSegment(s topology.Segment) error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: s.Bridge}}
	if err := netlink.LinkAdd(br); err != nil {
		return err
	}
	return upWith(br, s.Addr)
}

// plug connects the host's ens18 to a port of the switch and makes the switch the host's default gateway.
func (l *Lab) plug(spec topology.HostSpec) error {
	host, segment := l.Hosts[spec.Name], l.Topology.SegmentOf(spec)
	if err := l.MLS.Net.Do(func() error { return addPort(segment.Bridge, spec.Name, host.Net) }); err != nil {
		return err
	}
	return host.Net.Do(func() error {
		if err := sysctl("net/ipv4/ip_forward", "0"); err != nil {
			return err
		}
		link, err := netlink.LinkByName(Uplink)
		if err != nil {
			return err
		}
		if err := upWith(link, spec.Addr); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: segment.Addr.Addr().AsSlice()})
	})
}

// SwitchPort is the name of the port of the switch that a host is plugged into.
func SwitchPort(host string) string { return "swp-" + host }

func addPort(bridge, host string, ns *netns.Handle) error {
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	port := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: SwitchPort(host), MasterIndex: br.Attrs().Index},
		PeerName:  Uplink, PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if err := netlink.LinkAdd(port); err != nil {
		return fmt.Errorf("port %s: %w", port.Name, err)
	}
	return netlink.LinkSetUp(port)
}

func upWith(link netlink.Link, p netip.Prefix) error {
	addr, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	return netlink.LinkSetUp(link)
}

// sysctl sets a value of the calling thread's network namespace.
func sysctl(name, value string) error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644) }

// Unplug takes the host off the network at its switch port; plug it in again with Replug.
func (l *Lab) Unplug(host string) error { return l.setPort(host, netlink.LinkSetDown) }

// Replug undoes Unplug.
func (l *Lab) Replug(host string) error { return l.setPort(host, netlink.LinkSetUp) }

func (l *Lab) setPort(host string, set func(netlink.Link) error) error {
	return l.MLS.Net.Do(func() error {
		port, err := netlink.LinkByName(SwitchPort(host))
		if err != nil {
			return fmt.Errorf("port of %s: %w", host, err)
		}
		return set(port)
	})
}
