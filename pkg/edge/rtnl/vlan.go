// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
)

// Numbers of linux/if_bridge.h, linux/if_link.h and linux/rtnetlink.h that x/sys/unix lacks.
const (
	bridgeVLANFiltering = 7 // IFLA_BR_VLAN_FILTERING
	bridgeVLANProtocol  = 8 // IFLA_BR_VLAN_PROTOCOL
	bridgeVLANInfo      = 2 // IFLA_BRIDGE_VLAN_INFO
	vlanPVID            = 1 << 1
	vlanUntagged        = 1 << 2
	vlanRangeBegin      = 1 << 3
	vlanRangeEnd        = 1 << 4
	vlansCompressed     = 1 << 2 // RTEXT_FILTER_BRVLAN_COMPRESSED
)

// ErrNoVLANs says that this kernel's bridges cannot keep VLANs apart.
var ErrNoVLANs = errors.New("this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)")

// SetFiltering makes a bridge that is there keep VLANs apart; ErrNoVLANs when the kernel cannot.
func (c *Conn) SetFiltering(bridge int) error {
	if err := noVLANs(c.do(filteringMessage(bridge))); err != nil {
		return fmt.Errorf("make bridge %d keep VLANs apart: %w", bridge, err)
	}
	return nil
}

func filteringMessage(bridge int) *message {
	m := newMessage(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, bridge, 0, 0))
	m.bridgeInfo(true)
	return m
}

// bridgeInfo says that a link is a bridge, and which.
func (m *message) bridgeInfo(filtering bool) {
	m.nest(unix.IFLA_LINKINFO, func() {
		m.str(unix.IFLA_INFO_KIND, "bridge")
		if filtering {
			m.nest(unix.IFLA_INFO_DATA, func() { m.u8(bridgeVLANFiltering, 1) })
		}
	})
}

func noVLANs(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoVLANs
	}
	return err
}

// VLANs lists those that a port of a bridge is in, sorted; none where the kernel knows none.
func (c *Conn) VLANs(port int) ([]attach.VLAN, error) {
	m := newMessage(unix.RTM_GETLINK, 0, ifinfo(unix.AF_BRIDGE, 0, 0, 0))
	m.u32(unix.IFLA_EXT_MASK, vlansCompressed)
	all, err := c.dump(m)
	if err != nil {
		return nil, fmt.Errorf("list VLANs of port %d: %w", port, err)
	}
	for _, b := range all {
		if len(b) >= unix.SizeofIfInfomsg && int(uint32Of(b[4:])) == port {
			return parseVLANs(b[unix.SizeofIfInfomsg:]), nil
		}
	}
	return nil, nil
}

// parseVLANs reads a port's attributes, in which a run of VLANs alike may be its first and last (linux/if_bridge.h).
func parseVLANs(b []byte) (out []attach.VLAN) {
	first := 0
	for kind, spec := range attrs(b) {
		if kind != unix.IFLA_AF_SPEC {
			continue
		}
		for kind, v := range attrs(spec) {
			if kind != bridgeVLANInfo || len(v) < 4 {
				continue
			}
			flags, id := binary.NativeEndian.Uint16(v), int(binary.NativeEndian.Uint16(v[2:]))
			if flags&vlanRangeBegin != 0 {
				first = id
				continue
			}
			from := id
			if flags&vlanRangeEnd != 0 {
				from = first
			}
			for ; from <= id; from++ {
				out = append(out, attach.VLAN{ID: from, PVID: flags&vlanPVID != 0, Untagged: flags&vlanUntagged != 0})
			}
		}
	}
	slices.SortFunc(out, func(a, b attach.VLAN) int { return a.ID - b.ID })
	return out
}

// SetVLANs puts a port of a bridge in the VLANs that it is to be in and takes it out of others; ErrNoVLANs when the kernel
// cannot. What is right already is not touched.
func (c *Conn) SetVLANs(index int, port attach.Port) error {
	have, err := c.VLANs(index)
	if err != nil {
		return err
	}
	add, drop := port.ChangeVLANs(have)
	for i := range drop {
		drop[i] = attach.VLAN{ID: drop[i].ID} // how it was in it is no matter
	}
	for _, change := range []struct {
		kind  uint16
		vlans []attach.VLAN
	}{{unix.RTM_DELLINK, drop}, {unix.RTM_SETLINK, add}} {
		if len(change.vlans) == 0 {
			continue
		}
		if err := noVLANs(c.do(vlanMessage(change.kind, index, change.vlans))); err != nil {
			return fmt.Errorf("put port %s in its VLANs: %w", port.Name, err)
		}
	}
	return nil
}

// vlanMessage adds a port to VLANs (RTM_SETLINK) or takes it out of them (RTM_DELLINK); a run of them costs two attributes.
func vlanMessage(kind uint16, index int, vlans []attach.VLAN) *message {
	m := newMessage(kind, 0, ifinfo(unix.AF_BRIDGE, index, 0, 0))
	info := func(flags uint16, v attach.VLAN) {
		if v.PVID {
			flags |= vlanPVID
		}
		if v.Untagged {
			flags |= vlanUntagged
		}
		b := binary.NativeEndian.AppendUint16(nil, flags)
		m.attr(bridgeVLANInfo, binary.NativeEndian.AppendUint16(b, uint16(v.ID)))
	}
	m.nest(unix.IFLA_AF_SPEC, func() {
		for i := 0; i < len(vlans); i++ {
			end := i
			for end+1 < len(vlans) && !vlans[i].PVID && vlans[end+1] == (attach.VLAN{ID: vlans[end].ID + 1, Untagged: vlans[i].Untagged}) {
				end++
			}
			if end == i {
				info(0, vlans[i])
				continue
			}
			info(vlanRangeBegin, vlans[i])
			info(vlanRangeEnd, vlans[end])
			i = end
		}
	})
	return m
}
