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

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Flow is a UDP or SCTP flow as the kernel remembers it.
type Flow struct {
	Protocol service.Protocol
	To       netip.AddrPort // where the client sent to
	By       netip.AddrPort // where the answers come from: another address if it was led elsewhere
}

// Match says which flows are meant. A zero address or port is any; where By is To, nobody has led them elsewhere.
type Match struct {
	Protocol service.Protocol
	To, By   netip.AddrPort
}

func (m Match) fits(f Flow) bool {
	like := func(want, got netip.AddrPort) bool {
		return (!want.Addr().IsValid() || want.Addr() == got.Addr()) && (want.Port() == 0 || want.Port() == got.Port())
	}
	return f.Protocol == m.Protocol && like(m.To, f.To) && like(m.By, f.By)
}

// Forget deletes the flows of one family that m means. The socket is any of NETLINK_NETFILTER, with no answer
// outstanding; its namespace, which must be the calling thread's too, is the one meant.
//
// A kernel from Linux 6.11 on is told once what to delete and passes over the empty places of its table, which takes a
// tenth of a millisecond. An older one has to list the table; and so has any for IPv6, because it takes a filter's
// addresses for those that are not meant (ctnetlink_filter_match_tuple takes ipv6_addr_cmp for a test of equality; seen in
// 6.18), and without addresses a filter would mean other people's flows. See pickFew for what that costs.
func Forget(fd int, v4 bool, m Match) error {
	if !v4 {
		return ForgetIf(fd, v4, m.Protocol, m.To.Port(), m.fits)
	}
	err := exchange(fd, flush(family(v4), m), func([]byte) {})
	switch {
	case err == nil || errors.Is(err, unix.ENOENT): // either way there is none left
		return nil
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP): // it wants a whole flow
		return ForgetIf(fd, v4, m.Protocol, m.To.Port(), m.fits)
	}
	return fmt.Errorf("forget flows: %w", err)
}

// ForgetIf deletes the flows of one family that were sent to the port (0: to any), if which says so of the flow, as Forget does
// with an old kernel. The socket's namespace must be the calling thread's, too: where its flows are few, they are read elsewhere.
func ForgetIf(fd int, v4 bool, p service.Protocol, port uint16, which func(Flow) bool) error {
	f := family(v4)
	picks := func(f Flow) bool { return f.Protocol == p && (port == 0 || f.To.Port() == port) && which(f) } // kernels before 5.8 list all
	if gone, known := pickFew(f, picks); known {
		return remove(fd, gone)
	}
	return forget(fd, f, list(f, p, port), picks)
}

func family(v4 bool) byte {
	if v4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// forget deletes of the flows that the kernel lists on request those that which picks.
func forget(fd int, family byte, request []byte, which func(Flow) bool) error {
	var gone [][]byte
	err := exchange(fd, request, func(b []byte) {
		orig := attr(b, ctaTupleOrig)
		proto := attr(orig, tupleProto, protoNum)
		if len(proto) != 1 || !which(Flow{service.Protocol(proto[0]), address(orig, ipDst, protoDst), address(attr(b, ctaTupleReply), ipSrc, protoSrc)}) {
			return
		}
		gone = append(gone, removal(family, b))
	})
	if err != nil {
		return fmt.Errorf("list flows: %w", err)
	}
	return remove(fd, gone)
}

// removal is the request to delete a flow that was listed.
func removal(family byte, b []byte) []byte {
	m := appendAttr(header(msgDelete, unix.NLM_F_ACK, family), ctaTupleOrig|nested, attr(b, ctaTupleOrig))
	for _, typ := range []uint16{ctaID, ctaZone} {
		if v := attr(b, typ); v != nil {
			m = appendAttr(m, typ, v)
		}
	}
	return m
}

func remove(fd int, gone [][]byte) error {
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
	filterOrigFlags    = 1 // what to compare of the tuple of this direction:
	filterReplyFlags   = 2
	filterSrc          = 1 << 0
	filterDst          = 1 << 1
	filterNum          = 1 << 3 // the protocol
	filterSrcPort      = 1 << 4
	filterPort         = 1 << 5 // the destination port
	tupleIP            = 1
	tupleProto         = 2
	ipSrc, ipDst       = 1, 2 // of IPv4; those of IPv6 are two more
	protoNum           = 1
	protoSrc, protoDst = 2, 3
	nested             = unix.NLA_F_NESTED
)

// list asks for the flows to the port.
func list(family byte, p service.Protocol, port uint16) []byte {
	m, flags := appendTuple(header(msgGet, unix.NLM_F_DUMP, family), ctaTupleOrig, p, netip.AddrPortFrom(netip.Addr{}, port))
	return appendAttr(m, ctaFilter|nested, appendAttr(nil, filterOrigFlags, binary.NativeEndian.AppendUint32(nil, flags)))
}

// flush asks to delete the flows that m means, by as much of their tuples as it names. A kernel that cannot refuses it:
// it takes the tuple for that of one flow, which it is not.
func flush(family byte, m Match) []byte {
	b, orig := appendTuple(header(msgDelete, unix.NLM_F_ACK, family), ctaTupleOrig, m.Protocol, m.To)
	filter := appendAttr(nil, filterOrigFlags, binary.NativeEndian.AppendUint32(nil, orig))
	if m.By.Addr().IsValid() || m.By.Port() != 0 {
		var reply uint32
		b, reply = appendTuple(b, ctaTupleReply, m.Protocol, m.By)
		filter = appendAttr(filter, filterReplyFlags, binary.NativeEndian.AppendUint32(nil, reply))
	}
	return appendAttr(b, ctaFilter|nested, filter)
}

// appendTuple appends what is known of a flow's server, where it is sent to in one direction and comes from in the other,
// and returns which parts that are.
func appendTuple(b []byte, typ uint16, p service.Protocol, at netip.AddrPort) (_ []byte, flags uint32) {
	ip, port, ipFlag, portFlag := uint16(ipDst), uint16(protoDst), uint32(filterDst), uint32(filterPort)
	if typ == ctaTupleReply {
		ip, port, ipFlag, portFlag = ipSrc, protoSrc, filterSrc, filterSrcPort
	}
	var tuple []byte
	if a := at.Addr(); a.IsValid() {
		if a.Is6() {
			ip += 2
		}
		tuple, flags = appendAttr(nil, tupleIP|nested, appendAttr(nil, ip, a.AsSlice())), ipFlag
	}
	proto := appendAttr(nil, protoNum, []byte{byte(p)})
	if at.Port() != 0 {
		proto, flags = appendAttr(proto, port, binary.BigEndian.AppendUint16(nil, at.Port())), flags|portFlag
	}
	return appendAttr(b, typ|nested, appendAttr(tuple, tupleProto|nested, proto)), flags | filterNum
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
