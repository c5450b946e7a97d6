// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"bytes"
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// message is a request under construction (RFC 3549 section 2.3): header, a fixed part, attributes.
type message struct{ b []byte }

// newMessage begins a request; fixed is the family header (ifinfomsg, ifaddrmsg, rtmsg).
func newMessage(kind, flags uint16, fixed []byte) *message {
	m := &message{b: make([]byte, unix.SizeofNlMsghdr, 512)}
	binary.NativeEndian.PutUint16(m.b[4:], kind)
	binary.NativeEndian.PutUint16(m.b[6:], flags|unix.NLM_F_REQUEST)
	m.b = append(m.b, fixed...)
	return m
}

// finish completes the header; the result is valid until the next change.
func (m *message) finish(flags uint16, seq uint32) []byte {
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	binary.NativeEndian.PutUint16(m.b[6:], binary.NativeEndian.Uint16(m.b[6:])|flags)
	binary.NativeEndian.PutUint32(m.b[8:], seq)
	return m.b
}

func (m *message) attr(kind uint16, value []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, value...)
	m.pad()
}

func (m *message) u32(kind uint16, v uint32)      { m.attr(kind, binary.NativeEndian.AppendUint32(nil, v)) }
func (m *message) u8(kind uint16, v uint8)        { m.attr(kind, []byte{v}) }
func (m *message) bool(kind uint16, v bool)       { m.u8(kind, map[bool]uint8{true: 1}[v]) }
func (m *message) str(kind uint16, s string)      { m.attr(kind, append([]byte(s), 0)) }
func (m *message) addr(kind uint16, a netip.Addr) { m.attr(kind, a.AsSlice()) }

// nest writes the attributes that f adds inside one of the given kind.
func (m *message) nest(kind uint16, f func()) {
	start := len(m.b)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	f()
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
}

func (m *message) pad() {
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func align(n int) int { return (n + 3) &^ 3 }

// attrs walks a run of attributes; a broken one ends the walk.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if length < 4 || length > len(b) || !yield(kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:length]) {
				return
			}
			b = b[min(align(length), len(b)):]
		}
	}
}

// ifinfo is struct ifinfomsg: the flags of change are set to those of flags.
func ifinfo(family uint8, index int, flags, change uint32) []byte {
	b := []byte{family, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// family is the address family of a.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func uint32Of(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
