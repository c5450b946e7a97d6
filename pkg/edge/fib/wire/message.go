// SPDX-License-Identifier: Apache-2.0

// Package wire is rtnetlink (linux/rtnetlink.h, linux/nexthop.h) as far as fib speaks it: messages as bytes, and the socket
// that they go over. It knows routes and next hops, and decides nothing about them.
package wire

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Native is the byte order of the kernel's messages.
var Native = binary.NativeEndian

// Start appends a message header; length and sequence are filled in later.
func Start(b []byte, typ, flags uint16) []byte {
	b = Native.AppendUint32(b, 0)
	b = Native.AppendUint16(b, typ)
	b = Native.AppendUint16(b, flags)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// Finish writes the length into the header of the message that begins at.
func Finish(m []byte, at int) []byte {
	Native.PutUint32(m[at:], uint32(len(m)-at))
	return m
}

// Family is that of an address, as the kernel counts it.
func Family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Attr appends one attribute.
func Attr(m []byte, typ uint16, val []byte) []byte {
	m = Native.AppendUint16(m, uint16(unix.SizeofRtAttr+len(val)))
	m = Native.AppendUint16(m, typ)
	m = append(m, val...)
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}

// AttrUint32 appends a number.
func AttrUint32(m []byte, typ uint16, v uint32) []byte {
	m = Native.AppendUint16(m, unix.SizeofRtAttr+4)
	m = Native.AppendUint16(m, typ)
	return Native.AppendUint32(m, v)
}

// AttrAddr appends an address.
func AttrAddr(m []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		a4 := a.As4()
		return Attr(m, typ, a4[:])
	}
	a16 := a.As16()
	return Attr(m, typ, a16[:])
}

func eachAttr(data []byte, f func(typ uint16, val []byte)) {
	for len(data) >= unix.SizeofRtAttr {
		size := int(Native.Uint16(data))
		if size < unix.SizeofRtAttr || size > len(data) {
			return
		}
		f(Native.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[unix.SizeofRtAttr:size])
		data = data[min(align(size), len(data)):]
	}
}

// Attrs are attributes by their type.
func Attrs(data []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	eachAttr(data, func(typ uint16, val []byte) { out[typ] = val })
	return out
}

// number is the value of an attribute; 0 when it is cut short.
func number(val []byte) uint32 {
	if len(val) < 4 {
		return 0
	}
	return Native.Uint32(val)
}

// DumpAll asks for everything of one kind, of all families; size is that of the kind's header.
func DumpAll(typ uint16, size int) []byte {
	b := Start(nil, typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	return Finish(append(b, make([]byte, size)...), 0)
}

func align(n int) int { return (n + 3) &^ 3 }
