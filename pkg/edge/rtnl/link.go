// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
)

// Numbers that x/sys/unix lacks (linux/veth.h, linux/if_link.h, linux/rtnetlink.h).
const (
	vethInfoPeer = 1
	skipStats    = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	operUp       = 6      // IF_OPER_UP (RFC 2863 section 3.1.14)

	stateBlocking = 4 // BR_STATE_BLOCKING (linux/if_bridge.h); 0 is disabled, 1 and 2 are on their way to 3, forwarding
)

// ErrNoLink says that the named link does not exist.
var ErrNoLink = errors.New("no such interface")

// Link is one interface as the kernel describes it.
type Link struct {
	Index, Master int
	Peer          int // veth: index of the other end, in its own namespace
	Name, Alias   string
	Kind          string // "veth", "bridge", …; empty for hardware
	MAC           attach.MAC
	MTU           int
	Up, Promisc   bool
	Running       bool // its carrier is there, and the kernel has acted on that
	Hairpin       bool // as port of a bridge
	Isolated      bool
	Blocked       bool // as port of a bridge that neither forwards by it nor is about to
	Filtering     bool // bridge: keeps VLANs apart
	KnowsVLANs    bool // bridge: could, in this kernel
}

// Link finds an interface by name; ErrNoLink when there is none.
func (c *Conn) Link(name string) (Link, error) {
	m := newMessage(unix.RTM_GETLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0))
	m.str(unix.IFLA_IFNAME, name)
	return c.link(m, name)
}

// LinkAt finds an interface by index.
func (c *Conn) LinkAt(index int) (Link, error) {
	return c.link(newMessage(unix.RTM_GETLINK, 0, ifinfo(unix.AF_UNSPEC, index, 0, 0)), fmt.Sprint(index))
}

func (c *Conn) link(m *message, what string) (Link, error) {
	m.u32(unix.IFLA_EXT_MASK, skipStats)
	b, err := c.get(m)
	if errors.Is(err, unix.ENODEV) {
		return Link{}, fmt.Errorf("%s: %w", what, ErrNoLink)
	}
	if err != nil {
		return Link{}, fmt.Errorf("look up interface %s: %w", what, err)
	}
	return parseLink(b), nil
}

// Links lists every interface of the namespace.
func (c *Conn) Links() ([]Link, error) {
	m := newMessage(unix.RTM_GETLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0))
	m.u32(unix.IFLA_EXT_MASK, skipStats)
	all, err := c.dump(m)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	out := make([]Link, len(all))
	for i, b := range all {
		out[i] = parseLink(b)
	}
	return out, nil
}

func parseLink(b []byte) Link {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	l := Link{Index: int(int32(binary.NativeEndian.Uint32(b[4:]))), Up: flags&unix.IFF_UP != 0, Promisc: flags&unix.IFF_PROMISC != 0}
	for kind, v := range attrs(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = cString(v)
		case unix.IFLA_IFALIAS:
			l.Alias = cString(v)
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.MAC) {
				l.MAC = attach.MAC(v)
			}
		case unix.IFLA_MTU:
			l.MTU = int(uint32Of(v))
		case unix.IFLA_MASTER:
			l.Master = int(uint32Of(v))
		case unix.IFLA_LINK:
			l.Peer = int(uint32Of(v))
		case unix.IFLA_OPERSTATE:
			l.Running = len(v) == 1 && v[0] == operUp
		case unix.IFLA_LINKINFO:
			l.parseInfo(v)
		}
	}
	return l
}

func (l *Link) parseInfo(b []byte) {
	for kind, v := range attrs(b) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = cString(v)
		case unix.IFLA_INFO_DATA:
			if l.Kind == "bridge" {
				l.parseBridge(v)
			}
		case unix.IFLA_INFO_SLAVE_DATA:
			for kind, v := range attrs(v) {
				on := len(v) == 1 && v[0] != 0
				switch kind {
				case unix.IFLA_BRPORT_MODE:
					l.Hairpin = on
				case unix.IFLA_BRPORT_ISOLATED:
					l.Isolated = on
				case unix.IFLA_BRPORT_STATE:
					l.Blocked = !on || v[0] == stateBlocking
				}
			}
		}
	}
}

func (l *Link) parseBridge(b []byte) {
	for kind, v := range attrs(b) {
		switch kind {
		case bridgeVLANFiltering: // said by every kernel
			l.Filtering = len(v) == 1 && v[0] != 0
		case bridgeVLANProtocol: // said by one that can
			l.KnowsVLANs = true
		}
	}
}

// MakeBridge makes b, down, and reports false when a link of that name is there already, which may be by another process
// that was a moment faster. Its MTU is set once more by itself, so that the kernel does not lower it to its ports' (br_mtu_auto_adjust).
// ErrNoVLANs when it is to keep VLANs apart and the kernel cannot.
func (c *Conn) MakeBridge(b attach.Bridge) (made bool, err error) {
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(unix.AF_UNSPEC, 0, 0, 0))
	m.str(unix.IFLA_IFNAME, b.Name)
	m.attr(unix.IFLA_ADDRESS, b.MAC[:])
	m.u32(unix.IFLA_MTU, uint32(b.MTU))
	m.bridgeInfo(b.Filtering)
	if err := noVLANs(c.do(m)); errors.Is(err, unix.EEXIST) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("make bridge %s: %w", b.Name, err)
	}
	m = newMessage(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, 0, 0, 0))
	m.str(unix.IFLA_IFNAME, b.Name)
	m.u32(unix.IFLA_MTU, uint32(b.MTU))
	if err := c.do(m); err != nil {
		return true, fmt.Errorf("set MTU of bridge %s: %w", b.Name, err)
	}
	return true, nil
}

// ErrExists says that a link of the wanted name is there already, on one of the two sides.
var ErrExists = errors.New("interface exists already")

// ErrBridgeFull says that the bridge has all the ports that the kernel allows (BR_MAX_PORTS, 1023).
var ErrBridgeFull = errors.New("the bridge has 1023 ports already, which is all that the kernel allows")

// MakeVeth makes the pair, down, in one message: port in this namespace and already a port of the bridge, pod in the
// namespace that the file descriptor podNS is open on; with a negative one in this namespace too.
func (c *Conn) MakeVeth(port attach.Port, bridge int, pod attach.Pod, podNS int) error {
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(unix.AF_UNSPEC, 0, 0, 0))
	end := func(name string, mac attach.MAC, mtu int) {
		m.str(unix.IFLA_IFNAME, name)
		m.attr(unix.IFLA_ADDRESS, mac[:])
		m.u32(unix.IFLA_MTU, uint32(mtu))
		m.u32(unix.IFLA_NUM_TX_QUEUES, 1)
		m.u32(unix.IFLA_NUM_RX_QUEUES, 1)
	}
	end(port.Name, port.MAC, port.MTU)
	m.u32(unix.IFLA_MASTER, uint32(bridge))
	m.nest(unix.IFLA_LINKINFO, func() {
		m.str(unix.IFLA_INFO_KIND, "veth")
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.nest(vethInfoPeer, func() {
				m.b = append(m.b, ifinfo(unix.AF_UNSPEC, 0, 0, 0)...)
				end(pod.Name, pod.MAC, pod.MTU)
				if podNS >= 0 {
					m.u32(unix.IFLA_NET_NS_FD, uint32(podNS))
				}
			})
		})
	})
	err := c.do(m)
	switch {
	case errors.Is(err, unix.EEXIST):
		err = ErrExists
	case errors.Is(err, unix.EXFULL):
		err = ErrBridgeFull
	}
	if err != nil {
		return fmt.Errorf("make veth pair %s and %s: %w", port.Name, pod.Name, err)
	}
	return nil
}

// StartPort gives a port its flags and alias and brings it up.
func (c *Conn) StartPort(p attach.Port) error {
	m := newMessage(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP))
	m.str(unix.IFLA_IFNAME, p.Name)
	m.str(unix.IFLA_IFALIAS, p.Alias)
	m.nest(unix.IFLA_LINKINFO, func() {
		m.str(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		m.nest(unix.IFLA_INFO_SLAVE_DATA, func() {
			m.bool(unix.IFLA_BRPORT_MODE, p.Hairpin)
			m.bool(unix.IFLA_BRPORT_ISOLATED, p.Isolated)
		})
	})
	if err := c.do(m); err != nil {
		return fmt.Errorf("start port %s: %w", p.Name, err)
	}
	return nil
}

// carrierWait is how long Await waits.
const carrierWait = 2 * time.Second

// Await returns when a link that is up passes frames. The kernel acts on a carrier that has come up in its own time: until
// then a bridge does not forward from the port, and the pod's end drops what is sent. It acts at once when asked about the
// link (since 6.8: linkwatch_sync_dev), so one question is enough, as a rule.
func (c *Conn) Await(name string) error {
	for deadline := time.Now().Add(carrierWait); ; time.Sleep(time.Millisecond) {
		l, err := c.Link(name)
		if err != nil || l.Running {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interface %s: no carrier after %s", name, carrierWait)
		}
	}
}

// Join makes the link a port of the bridge.
func (c *Conn) Join(index, bridge int) error {
	m := newMessage(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, index, 0, 0))
	m.u32(unix.IFLA_MASTER, uint32(bridge))
	if err := c.do(m); err != nil {
		return fmt.Errorf("join link %d to bridge %d: %w", index, bridge, err)
	}
	return nil
}

// Up brings an interface up, and makes it promiscuous where asked.
func (c *Conn) Up(index int, promisc bool) error {
	flags := uint32(unix.IFF_UP)
	if promisc {
		flags |= unix.IFF_PROMISC
	}
	if err := c.do(newMessage(unix.RTM_NEWLINK, 0, ifinfo(unix.AF_UNSPEC, index, flags, flags))); err != nil {
		return fmt.Errorf("bring up interface %d: %w", index, err)
	}
	return nil
}

// Delete removes a link, and with a veth its other end, and waits until the kernel has let go of everything.
func (c *Conn) Delete(index int) error {
	err := c.do(newMessage(unix.RTM_DELLINK, 0, ifinfo(unix.AF_UNSPEC, index, 0, 0)))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %d: %w", index, err)
	}
	return nil
}
