// SPDX-License-Identifier: Apache-2.0

package nft

import "encoding/binary"

// expr is one instruction of a rule.
type expr struct {
	name string
	data func(*enc)
}

// Registers: values are laid side by side from reg 8 (NFT_REG32_00) in words of four bytes.
const (
	verdictReg = 0
	firstReg   = 8
)

// Verdicts (linux/netfilter.h, nf_tables.h).
const (
	verdictDrop   uint32 = 0
	verdictAccept uint32 = 1
	verdictReturn uint32 = 0xfffffffb // NFT_RETURN, -5
	verdictJump   uint32 = 0xfffffffd // NFT_JUMP, -3
	verdictGoto   uint32 = 0xfffffffc // NFT_GOTO, -4
)

func payload(base, offset, size, dreg uint32) expr {
	return expr{"payload", func(e *enc) { e.u32(1, dreg); e.u32(2, base); e.u32(3, offset); e.u32(4, size) }}
}

func metaL4Proto(dreg uint32) expr {
	return expr{"meta", func(e *enc) { e.u32(1, dreg); e.u32(2, 16) }}
}

// fibLocal is 2 (RTN_LOCAL) for packets to an address of this host.
func fibLocal(dreg uint32) expr {
	return expr{"fib", func(e *enc) { e.u32(1, dreg); e.u32(2, 3); e.u32(3, 2) }} // result type addrtype, by daddr
}

func metaIif(dreg uint32) expr {
	return expr{"meta", func(e *enc) { e.u32(1, dreg); e.u32(2, 4) }}
}

// compare: op 0 is equal, 1 not equal.
func compare(reg, op uint32, v []byte) expr {
	return expr{"cmp", func(e *enc) {
		e.u32(1, reg)
		e.u32(2, op)
		end := e.nest(3)
		e.bytes(attrDataValue, v)
		end()
	}}
}

func member(set string, reg uint32, not bool) expr {
	return expr{"lookup", func(e *enc) {
		e.str(1, set)
		e.u32(2, reg)
		if not {
			e.u32(5, 1)
		}
	}}
}

func mapped(set string, reg, dreg uint32) expr {
	return expr{"lookup", func(e *enc) { e.str(1, set); e.u32(2, reg); e.u32(3, dreg) }}
}

func verdict(code uint32, chain string) expr {
	return expr{"immediate", func(e *enc) {
		e.u32(1, verdictReg)
		end := e.nest(2)
		putVerdict(e, code, chain)
		end()
	}}
}

func putVerdict(e *enc, code uint32, chain string) {
	end := e.nest(attrDataVerdict)
	e.u32(attrVerdictCode, code)
	if chain != "" {
		e.str(attrVerdictChain, chain)
	}
	end()
}

func random(dreg, mod, offset uint32) expr {
	return expr{"numgen", func(e *enc) { e.u32(1, dreg); e.u32(2, mod); e.u32(3, 1); e.u32(4, offset) }}
}

func dnat(family byte, addrReg, portReg uint32) expr {
	return expr{"nat", func(e *enc) {
		e.u32(1, 1)
		e.u32(2, uint32(family))
		e.u32(3, addrReg)
		e.u32(5, portReg)
	}}
}

// masquerade picks ports at random (NF_NAT_RANGE_PROTO_RANDOM_FULLY): two CPUs that pick the same one lose a packet.
func masquerade() expr { return expr{"masq", func(e *enc) { e.u32(1, 0x10) }} }

func redirect() expr { return expr{"redir", func(*enc) {}} }

// reject: kind 0 is an ICMP unreachable of the family with the code, 1 a TCP reset.
func reject(kind uint32, code uint8) expr {
	return expr{"reject", func(e *enc) { e.u32(1, kind); e.u8(2, code) }}
}

// Conntrack keys (enum nft_ct_keys).
const (
	ctState, ctStatus, ctProtoDst uint32 = 0, 2, 12
	ctDstIP, ctDstIP6             uint32 = 20, 22
)

func ct(key, dreg uint32) expr {
	return expr{"ct", func(e *enc) { e.u32(1, dreg); e.u32(2, key) }}
}

func ctOriginal(key, dreg uint32) expr {
	return expr{"ct", func(e *enc) { e.u32(1, dreg); e.u32(2, key); e.u8(3, 0) }}
}

// bits leaves the bits of a mask (host byte order, as conntrack's words are) in reg.
func bits(reg, mask uint32) expr {
	return expr{"bitwise", func(e *enc) {
		e.u32(1, reg)
		e.u32(2, reg)
		e.u32(3, 4)
		for typ, v := range [...]uint32{mask, 0} {
			end := e.nest(uint16(4 + typ)) //nolint:gosec // 4 or 5
			e.bytes(attrDataValue, native(v))
			end()
		}
	}}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// rule is a rule in both spellings; a test compares what the kernel lists with the text.
type rule struct {
	text  string
	exprs []expr
}

func (r rule) put(e *enc) {
	r.putExprs(e)
	e.bytes(attrRuleUserdata, r.mark())
}

func (r rule) putExprs(e *enc) {
	end := e.nest(attrRuleExprs)
	for _, x := range r.exprs {
		item := e.nest(attrList)
		e.str(1, x.name)
		data := e.nest(2)
		x.data(e)
		data()
		item()
	}
	end()
}

// mark is kept with the rule in the kernel, as its comment: by it a later start knows whether the rule is still ours
// and as this version writes it, in either spelling.
func (r rule) mark() []byte {
	e := enc{b: []byte(r.text)}
	r.putExprs(&e)
	h := uint32(2166136261) // FNV-1a
	for _, c := range e.b {
		h = (h ^ uint32(c)) * 16777619
	}
	const digits = "0123456789abcdef"
	c := []byte("l3edge 00000000\x00")
	for i := range 8 {
		c[7+i] = digits[h>>(28-4*i)&15]
	}
	return append([]byte{0, byte(len(c))}, c...) // NFTNL_UDATA_RULE_COMMENT
}
