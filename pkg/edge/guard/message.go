// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// nfgenSize is the size of struct nfgenmsg, behind every netlink header.
const nfgenSize = 4

// message is one nftables request: native byte order in headers, network order in attributes.
type message struct{ b []byte }

func newMessage(kind, flags uint16, seq uint32) *message {
	return raw(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, seq, unix.AF_BRIDGE, 0)
}

func raw(kind, flags uint16, seq uint32, family byte, resource uint16) *message {
	m := &message{b: make([]byte, unix.SizeofNlMsghdr, 256)}
	binary.NativeEndian.PutUint16(m.b[4:], kind)
	binary.NativeEndian.PutUint16(m.b[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m.b[8:], seq)
	m.b = append(m.b, family, unix.NFNETLINK_V0)
	m.b = binary.BigEndian.AppendUint16(m.b, resource)
	return m
}

func (m *message) finish() []byte {
	binary.NativeEndian.PutUint32(m.b, uint32(len(m.b)))
	return m.b
}

func (m *message) attr(kind uint16, v []byte) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(v)))
	m.b = binary.NativeEndian.AppendUint16(m.b, kind)
	m.b = append(m.b, v...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *message) str(kind uint16, s string) { m.attr(kind, append([]byte(s), 0)) }
func (m *message) u32(kind uint16, v uint32) { m.attr(kind, binary.BigEndian.AppendUint32(nil, v)) }

func (m *message) nest(kind uint16, f func()) {
	start := len(m.b)
	m.attr(kind|unix.NLA_F_NESTED, nil)
	f()
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
}

// attrs walks a run of attributes; a broken one ends the walk.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if length < 4 || length > len(b) || !yield(kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:length]) {
				return
			}
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

// within says that the kernel's attributes have every one of ours with the same value; it may say more.
func within(ours, theirs []byte) bool {
	for len(ours) >= 4 {
		length, kind := int(binary.NativeEndian.Uint16(ours)), binary.NativeEndian.Uint16(ours[2:])
		v, nested, found := ours[4:length], kind&unix.NLA_F_NESTED != 0, false
		for k, t := range attrs(theirs) {
			if k == kind&^unix.NLA_F_NESTED {
				found = bytes.Equal(v, t) || nested && within(v, t)
				break
			}
		}
		if !found {
			return false
		}
		ours = ours[min((length+3)&^3, len(ours)):]
	}
	return true
}

// batch is one transaction: all of it happens, or nothing.
type batch struct {
	messages []func(seq uint32, last bool) []byte
}

func (b *batch) add(kind, flags uint16, fill func(*message)) {
	b.messages = append(b.messages, func(seq uint32, last bool) []byte {
		if last {
			flags |= unix.NLM_F_ACK
		}
		m := newMessage(kind, flags, seq)
		fill(m)
		return m.finish()
	})
}

func (b *batch) element(kind, flags uint16, e element) {
	b.add(kind, flags, func(m *message) {
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		m.str(unix.NFTA_SET_ELEM_LIST_SET, e.set)
		m.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			m.nest(unix.NFTA_LIST_ELEM, func() {
				m.nest(unix.NFTA_SET_ELEM_KEY, func() { m.attr(unix.NFTA_DATA_VALUE, e.key) })
			})
		})
	})
}

func (b *batch) finish(c *Conn) []byte {
	out := raw(unix.NFNL_MSG_BATCH_BEGIN, 0, c.next(), unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES).finish()
	for i, m := range b.messages {
		out = append(out, m(c.next(), i == len(b.messages)-1)...)
	}
	return append(out, raw(unix.NFNL_MSG_BATCH_END, 0, c.next(), unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES).finish()...)
}
