// SPDX-License-Identifier: Apache-2.0

package nft

import "encoding/binary"

// Message types (enum nf_tables_msg_types) and the attributes that we use of each object.
const (
	msgNewTable, msgGetTable, msgDelTable               = 0, 1, 2
	msgNewChain, msgGetChain, msgDelChain               = 3, 4, 5
	msgNewRule, msgGetRule, msgDelRule                  = 6, 7, 8
	msgNewSet, msgGetSet, msgDelSet                     = 9, 10, 11
	msgNewSetElem, msgGetSetElem, msgDelSetElem         = 12, 13, 14
	subsys                                              = 10 // NFNL_SUBSYS_NFTABLES
	typeBatchBegin, typeBatchEnd                        = 0x10, 0x11
	attrTableName, attrTableFlags, flagDormant          = 1, 2, 1
	attrChainTable, attrChainName, attrChainHook        = 1, 3, 4
	attrChainPolicy, attrChainType                      = 5, 7
	attrHookNum, attrHookPriority                       = 1, 2
	attrRuleTable, attrRuleChain, attrRuleExprs         = 1, 2, 4
	attrRuleUserdata                                    = 7
	attrSetTable, attrSetName, attrSetFlags             = 1, 2, 3
	attrSetKeyType, attrSetKeyLen                       = 4, 5
	attrSetDataType, attrSetDataLen                     = 6, 7
	attrSetDesc, attrSetID                              = 9, 10
	attrDescSize, attrDescConcat                        = 1, 2
	attrElemsTable, attrElemsSet, attrElemsList         = 1, 2, 3
	attrElemKey, attrElemData, attrElemFlags            = 1, 2, 3
	attrElemUserdata, attrElemKeyEnd                    = 6, 10
	attrList                                            = 1
	attrDataValue, attrDataVerdict                      = 1, 2
	attrVerdictCode, attrVerdictChain                   = 1, 2
	flagInterval, flagMap, flagConcat                   = 0x4, 0x8, 0x80
	flagTimeout, flagEval                               = 0x10, 0x20
	elemIntervalEnd                                     = 0x1
	typeVerdict                                  uint32 = 0xffffff00
)

// enc appends netlink attributes: host byte order in headers, big-endian in nftables' numbers.
type enc struct{ b []byte }

func (e *enc) header(typ uint16, size int) {
	e.b = binary.NativeEndian.AppendUint16(e.b, uint16(4+size)) //nolint:gosec // bounded by the callers' chunks
	e.b = binary.NativeEndian.AppendUint16(e.b, typ)
}

func (e *enc) bytes(typ uint16, v []byte) {
	e.header(typ, len(v))
	e.b = append(e.b, v...)
	e.pad()
}

func (e *enc) str(typ uint16, v string) {
	e.header(typ, len(v)+1)
	e.b = append(append(e.b, v...), 0)
	e.pad()
}

func (e *enc) u32(typ uint16, v uint32) {
	e.header(typ, 4)
	e.b = binary.BigEndian.AppendUint32(e.b, v)
}

func (e *enc) u64(typ uint16, v uint64) {
	e.header(typ, 8)
	e.b = binary.BigEndian.AppendUint64(e.b, v)
}

func (e *enc) u8(typ uint16, v uint8) { e.bytes(typ, []byte{v}) }

// nest begins a nested attribute; the function it returns ends it.
func (e *enc) nest(typ uint16) func() {
	at := len(e.b)
	e.header(typ|0x8000, 0)
	return func() { binary.NativeEndian.PutUint16(e.b[at:], uint16(len(e.b)-at)) } //nolint:gosec // likewise
}

func (e *enc) pad() {
	for len(e.b)%4 != 0 {
		e.b = append(e.b, 0)
	}
}

// attrs walks a message's attributes; a damaged one ends the walk.
func attrs(b []byte, f func(typ uint16, v []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// attr is the value of one attribute, nil if it is not there.
func attr(b []byte, path ...uint16) []byte {
	for _, want := range path {
		var found []byte
		attrs(b, func(typ uint16, v []byte) {
			if typ == want && found == nil {
				found = v
			}
		})
		if b = found; b == nil {
			return nil
		}
	}
	return b
}

func attrString(b []byte, path ...uint16) string {
	v := attr(b, path...)
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

func attrU32(b []byte, path ...uint16) uint32 {
	if v := attr(b, path...); len(v) >= 4 {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// Message flags (linux/netlink.h).
const (
	flagRequest, flagAck = 0x1, 0x4
	flagDump             = 0x300
	flagExcl             = 0x200
	flagCreate           = 0x400
	flagAppend           = 0x800
	flagDumpIntr         = 0x10
)

// batch is one transaction: all of its messages take effect, or none.
type batch struct {
	e    enc
	last int // where the last message begins
	n    uint32
}

// msg appends one message for family.
func (b *batch) msg(typ, flags uint16, family byte, fill func(*enc)) {
	if b.n == 0 {
		b.raw(typeBatchBegin, flagRequest, 0, subsys, nil)
	}
	b.last = len(b.e.b)
	b.raw(subsys<<8|typ, flagRequest|flags, family, 0, fill)
}

func (b *batch) raw(typ, flags uint16, family byte, res uint16, fill func(*enc)) {
	at := len(b.e.b)
	b.e.b = appendHeader(b.e.b, typ, flags, b.n, family, res)
	b.n++
	if fill != nil {
		fill(&b.e)
	}
	binary.NativeEndian.PutUint32(b.e.b[at:], uint32(len(b.e.b)-at)) //nolint:gosec // far below
}

func appendHeader(b []byte, typ, flags uint16, seq uint32, family byte, res uint16) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0) // port id: the kernel knows
	b = append(b, family, 0)
	return binary.BigEndian.AppendUint16(b, res)
}

// finish closes the transaction. The last message alone asks for an acknowledgement, which the kernel sends after the
// commit; errors of any message are sent unasked.
func (b *batch) finish() []byte {
	flags := binary.NativeEndian.Uint16(b.e.b[b.last+6:])
	binary.NativeEndian.PutUint16(b.e.b[b.last+6:], flags|flagAck)
	b.raw(typeBatchEnd, flagRequest, 0, subsys, nil)
	return b.e.b
}
