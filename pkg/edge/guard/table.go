// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

// The table, in the words of nft (before 1.0.8 it lists icmpv6 taddr as @th,64,128, and cannot read that back):
//
//	table bridge l3edge_pods {
//		set ports  { type ifname }                           # bound ports
//		set strict { type ifname }                           # those of them bound to addresses, not only to the MAC
//		set macs   { type ifname . ether_addr }
//		set src4   { type ifname . ether_addr . ipv4_addr }
//		set src6   { type ifname . ether_addr . ipv6_addr }
//		chain prerouting {
//			type filter hook prerouting priority dstnat; policy accept;
//			iifname != @ports accept
//			iifname . ether saddr != @macs drop
//			iifname != @strict accept
//			iifname . ether saddr . ip saddr @src4 accept
//			ether type arp iifname . ether saddr . arp saddr ip != @src4 drop
//			iifname . arp saddr ether . arp saddr ip @src4 accept
//			icmpv6 type nd-neighbor-advert iifname . ether saddr . icmpv6 taddr != @src6 drop
//			iifname . ether saddr . ip6 saddr @src6 accept
//			drop
//		}
//	}
const (
	tableName  = mark.TablePods
	setPorts   = "ports"
	setStrict  = "strict"
	setMACs    = "macs"
	setSource4 = "src4"
	setSource6 = "src6"
	chainName  = "prerouting"
	nameSize   = 16   // IFNAMSIZ
	priority   = -300 // NF_BR_PRI_NAT_DST_BRIDGED: before anything rewrites
)

// Types of keys as nft numbers them (its enum datatypes), six bits each in a concatenation, so that it can list the sets.
const (
	typeIPv4, typeIPv6, typeEther, typeIfName = 7, 8, 9, 41
	concat                                    = 6
)

// table describes the table: not dormant.
func table(m *message) {
	m.str(unix.NFTA_TABLE_NAME, tableName)
	m.u32(unix.NFTA_TABLE_FLAGS, 0)
}

// hook describes the chain: where it is called.
func hook(m *message) {
	m.str(unix.NFTA_CHAIN_TABLE, tableName)
	m.str(unix.NFTA_CHAIN_NAME, chainName)
	m.nest(unix.NFTA_CHAIN_HOOK, func() {
		m.u32(unix.NFTA_HOOK_HOOKNUM, 0) // NF_BR_PRE_ROUTING
		p := int32(priority)
		m.u32(unix.NFTA_HOOK_PRIORITY, uint32(p))
	})
	m.u32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
	m.str(unix.NFTA_CHAIN_TYPE, "filter")
}

// called says whether the kernel calls the chain as we want it: the table may be made dormant, the chain another's of this name.
// Without a table the error is unix.ENOENT; a chain that is not there is none of another's.
func (c *Conn) called() (awake, ours bool, err error) {
	var wantTable, wantChain message
	table(&wantTable)
	hook(&wantChain)
	found := false
	_, err = c.dump(newMessage(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, c.next()).finish(), func(b []byte) {
		if name(b, unix.NFTA_TABLE_NAME) == tableName {
			found, awake = true, within(wantTable.b, b)
		}
	})
	if err == nil && !found {
		err = unix.ENOENT
	}
	if err != nil {
		return false, false, fmt.Errorf("list the table %s: %w", tableName, err)
	}
	ours = true
	_, err = c.dump(newMessage(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, c.next()).finish(), func(b []byte) {
		if name(b, unix.NFTA_CHAIN_TABLE) == tableName && name(b, unix.NFTA_CHAIN_NAME) == chainName {
			ours = within(wantChain.b, b)
		}
	})
	if err != nil {
		return false, false, fmt.Errorf("list the chain of table %s: %w", tableName, err)
	}
	return awake, ours, nil
}

// name is a text among the kernel's attributes.
func name(b []byte, kind uint16) string {
	for k, v := range attrs(b) {
		if k == kind {
			return string(bytes.TrimRight(v, "\x00"))
		}
	}
	return ""
}

// setUp makes what is missing of the table, and its rules anew, in one transaction; with again the chain too.
func (c *Conn) setUp(again bool) error {
	var b batch
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, table)
	if again {
		b.add(unix.NFT_MSG_DELCHAIN, 0, func(m *message) {
			m.str(unix.NFTA_CHAIN_TABLE, tableName)
			m.str(unix.NFTA_CHAIN_NAME, chainName)
		})
	}
	ports := typeIfName
	macs := ports<<concat | typeEther
	for i, s := range []struct {
		name         string
		kind, length int
	}{
		{setPorts, ports, nameSize}, {setStrict, ports, nameSize}, {setMACs, macs, nameSize + 8},
		{setSource4, macs<<concat | typeIPv4, nameSize + 8 + 4}, {setSource6, macs<<concat | typeIPv6, nameSize + 8 + 16},
	} {
		b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, func(m *message) {
			m.str(unix.NFTA_SET_TABLE, tableName)
			m.str(unix.NFTA_SET_NAME, s.name)
			m.u32(unix.NFTA_SET_KEY_TYPE, uint32(s.kind))
			m.u32(unix.NFTA_SET_KEY_LEN, uint32(s.length))
			m.u32(unix.NFTA_SET_ID, uint32(i+1))
			if s.kind == typeIfName { // tells nft, in its own words, that names are not numbers: key byte order (0), 4 bytes, host (1)
				m.attr(unix.NFTA_SET_USERDATA, append([]byte{0, 4}, binary.NativeEndian.AppendUint32(nil, 1)...))
			}
		})
	}
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, hook)
	chain := func(m *message) {
		m.str(unix.NFTA_RULE_TABLE, tableName)
		m.str(unix.NFTA_RULE_CHAIN, chainName)
	}
	b.add(unix.NFT_MSG_DELRULE, 0, chain) // all
	for _, r := range rules() {
		b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(m *message) {
			chain(m)
			m.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
				for _, x := range r {
					m.nest(unix.NFTA_LIST_ELEM, func() { m.b = append(m.b, x.encode()...) })
				}
			})
		})
	}
	return c.commit(&b)
}

// is says that a rule of the kernel, by its attributes, does what r does.
func is(rule []byte, r []expr) bool {
	n := 0
	for kind, list := range attrs(rule) {
		if kind != unix.NFTA_RULE_EXPRESSIONS {
			continue
		}
		for _, elem := range attrs(list) {
			if n >= len(r) || !within(r[n].encode(), elem) {
				return false
			}
			n++
		}
	}
	return n == len(r)
}

// Registers of four bytes, side by side: the name, the MAC behind it, the address behind that; as the kernel calls them
// (nft_dump_register): every fourth is one of the old ones, of sixteen bytes.
const (
	regName = unix.NFT_REG_1        // NFT_REG32_00
	regMAC  = unix.NFT_REG_2        // NFT_REG32_04: nameSize further
	regAddr = unix.NFT_REG32_00 + 6 // a MAC, in two of them, further
	regAny  = unix.NFT_REG_4        // free for comparing
)

const (
	base2, base3, base4 = unix.NFT_PAYLOAD_LL_HEADER, unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFT_PAYLOAD_TRANSPORT_HEADER
	icmp6               = 58
	advert              = 136 // RFC 4861 section 4.4
)

func rules() [][]expr {
	name, mac := meta(unix.NFT_META_IIFNAME, regName), payload(base2, 6, 6, regMAC)
	etherType := func(hi, lo byte) []expr { return []expr{payload(base2, 12, 2, regAny), equal([]byte{hi, lo})} }
	rule := func(parts ...any) (r []expr) {
		for _, p := range parts {
			switch p := p.(type) {
			case expr:
				r = append(r, p)
			case []expr:
				r = append(r, p...)
			}
		}
		return r
	}
	ip, arp, ip6 := etherType(8, 0), etherType(8, 6), etherType(0x86, 0xdd)
	return [][]expr{
		rule(name, lookup(setPorts, false), accept()),
		rule(name, mac, lookup(setMACs, false), drop()),
		rule(name, lookup(setStrict, false), accept()),
		rule(ip, name, mac, payload(base3, 12, 4, regAddr), lookup(setSource4, true), accept()),
		rule(arp, name, mac, payload(base3, 14, 4, regAddr), lookup(setSource4, false), drop()),
		rule(arp, name, payload(base3, 8, 6, regMAC), payload(base3, 14, 4, regAddr), lookup(setSource4, true), accept()),
		rule(ip6, meta(unix.NFT_META_L4PROTO, regAny), equal([]byte{icmp6}), payload(base4, 0, 1, regAny), equal([]byte{advert}),
			name, mac, payload(base4, 8, 16, regAddr), lookup(setSource6, false), drop()),
		rule(ip6, name, mac, payload(base3, 8, 16, regAddr), lookup(setSource6, true), accept()),
		rule(drop()),
	}
}

// expr is one instruction of a rule.
type expr struct {
	name string
	data func(*message)
}

func (x expr) encode() []byte {
	var m message
	m.str(unix.NFTA_EXPR_NAME, x.name)
	m.nest(unix.NFTA_EXPR_DATA, func() { x.data(&m) })
	return m.b
}

func payload(base, offset, length, reg int) expr {
	return expr{"payload", func(m *message) {
		m.u32(unix.NFTA_PAYLOAD_DREG, uint32(reg))
		m.u32(unix.NFTA_PAYLOAD_BASE, uint32(base))
		m.u32(unix.NFTA_PAYLOAD_OFFSET, uint32(offset))
		m.u32(unix.NFTA_PAYLOAD_LEN, uint32(length))
	}}
}

func meta(key, reg int) expr {
	return expr{"meta", func(m *message) {
		m.u32(unix.NFTA_META_DREG, uint32(reg))
		m.u32(unix.NFTA_META_KEY, uint32(key))
	}}
}

func equal(v []byte) expr {
	return expr{"cmp", func(m *message) {
		m.u32(unix.NFTA_CMP_SREG, regAny)
		m.u32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		m.nest(unix.NFTA_CMP_DATA, func() { m.attr(unix.NFTA_DATA_VALUE, v) })
	}}
}

// lookup goes on when the key that begins at regName is in the set, or, with in false, when it is not.
func lookup(set string, in bool) expr {
	return expr{"lookup", func(m *message) {
		m.str(unix.NFTA_LOOKUP_SET, set)
		m.u32(unix.NFTA_LOOKUP_SREG, regName)
		flags := uint32(unix.NFT_LOOKUP_F_INV)
		if in {
			flags = 0
		}
		m.u32(unix.NFTA_LOOKUP_FLAGS, flags)
	}}
}

func accept() expr { return verdict(1) } // NF_ACCEPT
func drop() expr   { return verdict(0) } // NF_DROP

func verdict(code uint32) expr {
	return expr{"immediate", func(m *message) {
		m.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		m.nest(unix.NFTA_IMMEDIATE_DATA, func() {
			m.nest(unix.NFTA_DATA_VERDICT, func() { m.u32(unix.NFTA_VERDICT_CODE, code) })
		})
	}}
}
