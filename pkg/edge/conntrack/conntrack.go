// SPDX-License-Identifier: Apache-2.0

// Package conntrack ends the kernel's memory of flows whose other end is gone, so that the next packet is led anew.
//
// It speaks ctnetlink by hand on a socket that its caller has open: a plugin starts faster without a library, and closing
// any nfnetlink socket may wait for the removal of nftables elements. Numbers are those of
// linux/netfilter/nfnetlink_conntrack.h.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flow is a UDP flow as the kernel remembers it.
type Flow struct {
	To netip.AddrPort // where the client sent to
	By netip.AddrPort // where the answers come from: another address if it was led elsewhere
}

// Forget deletes the UDP flows of one family that were sent to the port, if which says so of the flow. The socket is any
// of NETLINK_NETFILTER, with no answer outstanding; its namespace is the one meant. The kernel walks its whole table of
// flows, which takes milliseconds where that is large, however few there are.
func Forget(fd int, v4 bool, port uint16, which func(Flow) bool) error {
	family := byte(unix.AF_INET6)
	if v4 {
		family = unix.AF_INET
	}
	return forget(fd, family, list(family, port), func(f Flow) bool { return f.To.Port() == port && which(f) }) // kernels before 5.8 list all
}

// forget deletes of the flows that the kernel lists on request those that are of UDP and that which picks.
func forget(fd int, family byte, request []byte, which func(Flow) bool) error {
	var gone [][]byte
	err := exchange(fd, request, func(b []byte) {
		orig := attr(b, ctaTupleOrig)
		f := Flow{To: address(orig, ipDst, protoDst), By: address(attr(b, ctaTupleReply), ipSrc, protoSrc)}
		proto := attr(orig, tupleProto, protoNum)
		if len(proto) != 1 || proto[0] != unix.IPPROTO_UDP || !which(f) {
			return
		}
		m := header(msgDelete, unix.NLM_F_ACK, family)
		m = appendAttr(m, ctaTupleOrig|nested, orig)
		for _, typ := range []uint16{ctaID, ctaZone} {
			if v := attr(b, typ); v != nil {
				m = appendAttr(m, typ, v)
			}
		}
		gone = append(gone, m)
	})
	if err != nil {
		return fmt.Errorf("list flows: %w", err)
	}
	for _, m := range gone {
		if err := exchange(fd, m, func([]byte) {}); err != nil && !errors.Is(err, unix.ENOENT) { // it may have ended by itself
			return fmt.Errorf("forget flow: %w", err)
		}
	}
	return nil
}

const (
	subsys             = 1 // NFNL_SUBSYS_CTNETLINK
	msgGet, msgDelete  = 1, 2
	ctaTupleOrig       = 1
	ctaTupleReply      = 2
	ctaID, ctaZone     = 12, 18
	ctaFilter          = 25
	filterOrigFlags    = 1
	filterNum          = 1 << 3 // of filterOrigFlags: compare the protocol
	filterPort         = 1 << 5 // and its destination port
	tupleIP            = 1
	tupleProto         = 2
	ipSrc, ipDst       = 1, 2 // of IPv4; those of IPv6 are two more
	protoNum           = 1
	protoSrc, protoDst = 2, 3
	nested             = unix.NLA_F_NESTED
)

// list asks for the UDP flows to the port.
func list(family byte, port uint16) []byte {
	proto := appendAttr(appendAttr(nil, protoNum, []byte{unix.IPPROTO_UDP}), protoDst, binary.BigEndian.AppendUint16(nil, port))
	m := appendAttr(header(msgGet, unix.NLM_F_DUMP, family), ctaTupleOrig|nested, appendAttr(nil, tupleProto|nested, proto))
	flags := binary.NativeEndian.AppendUint32(nil, filterNum|filterPort)
	return appendAttr(m, ctaFilter|nested, appendAttr(nil, filterOrigFlags, flags))
}

// header is struct nlmsghdr, its length left out, and struct nfgenmsg. One exchange is over before the next, so the
// sequence number need not count; it is not one that nftables' side of the socket would use.
func header(typ, flags uint16, family byte) []byte {
	m := make([]byte, 4, 128)
	m = binary.NativeEndian.AppendUint16(m, subsys<<8|typ)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|flags)
	m = binary.NativeEndian.AppendUint32(m, sequence)
	return append(m, 0, 0, 0, 0, family, 0, 0, 0)
}

const sequence = 1 << 31

// exchange sends m and gives f the attributes of each answer, until the kernel says that it was the last.
func exchange(fd int, m []byte, f func(attrs []byte)) error {
	binary.NativeEndian.PutUint32(m, uint32(len(m))) //nolint:gosec // a few dozen bytes
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 32<<10) // the most that the kernel puts into one datagram
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr+4 || size > len(b) {
				return errors.New("broken message")
			}
			typ, seq, body := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size]
			b = b[min(align(size), len(b)):]
			switch {
			case seq != sequence:
			case typ == unix.NLMSG_ERROR || typ == unix.NLMSG_DONE:
				if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno != 0 { //nolint:gosec // an errno, negated
					return errno
				}
				return nil
			default:
				f(body[4:])
			}
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

func appendAttr(b []byte, typ uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(v))) //nolint:gosec // a few dozen bytes
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	return append(b, make([]byte, align(len(v))-len(v))...)
}

// attr is the value of an attribute within others, nil if it is not there.
func attr(b []byte, path ...uint16) []byte {
next:
	for _, want := range path {
		for len(b) >= 4 {
			size, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&^(nested|unix.NLA_F_NET_BYTEORDER)
			if size < 4 || size > len(b) {
				return nil
			}
			if typ == want {
				b = b[4:size]
				continue next
			}
			b = b[min(align(size), len(b)):]
		}
		return nil
	}
	return b
}

// address reads an address of either family and a port from a tuple.
func address(tuple []byte, ip, port uint16) netip.AddrPort {
	a, ok := netip.AddrFromSlice(attr(tuple, tupleIP, ip))
	if !ok {
		a, _ = netip.AddrFromSlice(attr(tuple, tupleIP, ip+2))
	}
	p := attr(tuple, tupleProto, port)
	if len(p) != 2 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p))
}
