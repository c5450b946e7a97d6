// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strconv"
)

// family holds what differs between IPv4 and IPv6.
type family struct {
	name     string // of the table's family
	nf       byte   // NFPROTO_*
	size     uint32 // of an address
	src, dst uint32 // offsets in the header
	addrType uint32 // nft's datatype of an address (datatype.h)
	ctDst    uint32
	echo     byte // ICMP type of an echo request
	icmp     byte // its protocol number
	ip, icmpName,
	typeName string
	unreachable uint8 // ICMP code of "port unreachable"
}

var (
	ip4 = &family{"ip", 2, 4, 12, 16, 7, ctDstIP, 8, 1, "ip", "icmp", "ipv4_addr", 3}
	ip6 = &family{"ip6", 10, 16, 8, 24, 8, ctDstIP6, 128, 58, "ip6", "icmpv6", "ipv6_addr", 4}
)

// Datatypes of nft(8), datatype.h.
const (
	typeProto, typeService, typeMark uint32 = 12, 13, 19
)

// setID names a set or map of a table; the order is that of the listing.
type setID uint8

// Everything that depends on services is an element of one of these.
const (
	setSvc     setID = iota // VIP . protocol . port -> chain of as many endpoints
	setOut                  // the same for clients outside, where they get others
	setEps                  // VIP . protocol . port . slot -> endpoint
	setNone                 // VIP . protocol . port -> refusal or silence, without endpoints
	setNoneOut              // the same for clients outside
	setFence                // VIPs that only some may reach
	setAdmit                // and who may
	setHairpin              // pods that may be balanced to themselves
	setHere                 // what is on this node
	setNets                 // portal nets
	setVIPs                 // addresses that nobody else answers on: what is left over is refused
	setPing                 // those of them that have an endpoint
	setMasq                 // addresses of portals, for the way back
	setNodes                // addresses that answer NodePorts, likewise
	setPorts                // NodePorts, likewise
	setKeep                 // VIP . protocol . port -> chain that notes clients for so long
	setAff                  // VIP . protocol . port . client -> endpoint, for a while; packets write it
)

// set is the shape of a set: fields of the key and of the value, by nft datatype; no value for a set, verdict for nil.
type set struct {
	name     string
	key      []uint32
	data     []uint32
	verdicts bool
	interval bool
	comeBack bool // its verdicts jump, all others go
	dynamic  bool // packets write it: elements are not Apply's
}

func (f *family) sets() []set {
	a := f.addrType
	dial := []uint32{a, typeProto, typeService}
	return []set{
		setSvc:     {name: "svc", key: dial, verdicts: true},
		setOut:     {name: "out", key: dial, verdicts: true},
		setEps:     {name: "eps", key: []uint32{a, typeProto, typeService, typeMark}, data: []uint32{a, typeService}},
		setNone:    {name: "none", key: dial, verdicts: true},
		setNoneOut: {name: "noneout", key: dial, verdicts: true},
		setFence:   {name: "fence", key: dial},
		setAdmit:   {name: "admit", key: []uint32{a, typeProto, typeService, a}, interval: true},
		setHairpin: {name: "hairpin", key: []uint32{a, a}},
		setHere:    {name: "here", key: []uint32{a}, interval: true},
		setNets:    {name: "nets", key: []uint32{a}, interval: true},
		setVIPs:    {name: "vips", key: []uint32{a}},
		setPing:    {name: "ping", key: []uint32{a}},
		setMasq:    {name: "masq", key: []uint32{a}},
		setNodes:   {name: "nodes", key: []uint32{a}},
		setPorts:   {name: "ports", key: []uint32{typeService}},
		setKeep:    {name: "keep", key: dial, verdicts: true, comeBack: true},
		setAff:     {name: "aff", key: []uint32{a, typeProto, typeService, a}, data: []uint32{a, typeService}, dynamic: true},
	}
}

// width is the room a field takes in a key: whole words.
func (f *family) width(datatype uint32) uint32 {
	if datatype == f.addrType {
		return f.size
	}
	return 4
}

// length is a key's real length: a field alone is not padded.
func (f *family) length(fields []uint32) uint32 {
	if len(fields) == 1 && fields[0] == typeService {
		return 2
	}
	n := uint32(0)
	for _, t := range fields {
		n += f.width(t)
	}
	return n
}

func concat(fields []uint32) uint32 {
	t := uint32(0)
	for _, f := range fields {
		t = t<<6 | f
	}
	return t
}

// chain is a base chain (with a hook) or one that maps lead to.
type chain struct {
	name     string
	kind     string // nat or filter; empty: no base chain
	hook     uint32
	priority int32
	rules    []rule
}

// Netfilter hooks (linux/netfilter.h).
const (
	hookPrerouting, hookInput, hookForward, hookOutput, hookPostrouting = 0, 1, 2, 3, 4
)

// chains is the whole program of a table, but for the chains of endpoint counts.
func (f *family) chains() []chain {
	dial := fmt.Sprintf("%s daddr . meta l4proto . th dport", f.ip)
	fence := rule{dial + " @fence " + dial + " . " + f.ip + " saddr != @admit drop",
		join(f.dial(firstReg), one(member("fence", firstReg, false)), f.dial(firstReg),
			one(f.saddr(firstReg+f.size/4+2), member("admit", firstReg, true), verdict(verdictDrop, "")))}
	svc := rule{dial + " vmap @svc", join(f.dial(firstReg), one(mapped("svc", firstReg, verdictReg)))}
	ping := rule{f.icmpName + " type echo-request " + f.ip + " daddr @ping redirect", one(
		metaL4Proto(firstReg), compare(firstReg, 0, []byte{f.icmp}), payload(2, 0, 1, firstReg), compare(firstReg, 0, []byte{f.echo}),
		f.daddr(firstReg), member("ping", firstReg, false), redirect())}
	outside := func(m string) rule {
		return rule{f.ip + " saddr != @here " + dial + " vmap @" + m, join(
			one(f.saddr(firstReg), member("here", firstReg, true)), f.dial(firstReg), one(mapped(m, firstReg, verdictReg)))}
	}
	none := rule{dial + " vmap @none", join(f.dial(firstReg), one(mapped("none", firstReg, verdictReg)))}
	known := rule{"ct state established,related return", one(ct(ctState, firstReg), bits(firstReg, 6), compare(firstReg, 1, native(0)), verdict(verdictReturn, ""))}
	refuse := func(s string) rule {
		return rule{f.ip + " daddr @" + s + " goto refuse", one(f.daddr(firstReg), member(s, firstReg, false), verdict(verdictGoto, "refuse"))}
	}
	in := []rule{known}
	if f == ip4 { // what NodePorts on localhost need open is open to nobody else
		in = append(in, rule{`iif != "lo" ip daddr 127.0.0.0/8 drop`, one(metaIif(firstReg), compare(firstReg, 1, native(1)),
			payload(1, f.dst, 1, firstReg), compare(firstReg, 0, []byte{127}), verdict(verdictDrop, ""))})
	}
	return []chain{
		{name: "refuse", rules: []rule{
			{"meta l4proto tcp reject with tcp reset", one(metaL4Proto(firstReg), compare(firstReg, 0, []byte{6}), reject(1, 0))},
			{"reject", one(reject(0, f.unreachable))},
		}},
		{name: "prerouting", kind: "nat", hook: hookPrerouting, priority: -100, rules: []rule{fence, outside("out"), svc, ping}},
		{name: "output", kind: "nat", hook: hookOutput, priority: -100, rules: []rule{fence, svc, ping}},
		{name: "postrouting", kind: "nat", hook: hookPostrouting, priority: 100, rules: f.sources()},
		{name: "input", kind: "nat", hook: hookInput, priority: 100, rules: []rule{translated(), f.remember()}},
		{name: "filter-input", kind: "filter", hook: hookInput, rules: append(in, outside("noneout"), none)},
		{name: "filter-forward", kind: "filter", hook: hookForward, rules: []rule{known, outside("noneout"), none, refuse("vips"), refuse("nets")}},
		{name: "filter-output", kind: "filter", hook: hookOutput, rules: []rule{known, none, refuse("vips"), refuse("nets")}},
	}
}

// translated ends a chain for flows that go where they were sent.
func translated() rule {
	return rule{"ct status ! dnat return", one(ct(ctStatus, firstReg), bits(firstReg, 0x20), compare(firstReg, 0, native(0)), verdict(verdictReturn, ""))}
}

// sources are the rules that rewrite a source address: portal.Table.Source in nftables' words.
func (f *family) sources() []rule {
	here := func(which string, load func(uint32) expr) rule {
		return rule{f.ip + " " + which + " @here return", one(load(firstReg), member("here", firstReg, false), verdict(verdictReturn, ""))}
	}
	rules := []rule{
		translated(),
		f.remember(),
		{fmt.Sprintf("%s saddr . %s daddr @hairpin masquerade fully-random", f.ip, f.ip), one(
			f.saddr(firstReg), f.daddr(firstReg+f.size/4), member("hairpin", firstReg, false), masquerade())},
	}
	if f == ip4 {
		rules = append(rules, rule{"ip saddr 127.0.0.0/8 masquerade fully-random", one(payload(1, f.src, 1, firstReg), compare(firstReg, 0, []byte{127}), masquerade())})
	}
	rules = append(rules,
		here("saddr", f.saddr), here("daddr", f.daddr),
		rule{"ct original " + f.ip + " daddr @masq masquerade fully-random", one(
			ctOriginal(f.ctDst, firstReg), member("masq", firstReg, false), masquerade())},
	)
	for _, p := range []struct {
		name string
		n    byte
	}{{"tcp", 6}, {"udp", 17}, {"sctp", 132}} {
		rules = append(rules, rule{
			"meta l4proto " + p.name + " ct original " + f.ip + " daddr @nodes ct original proto-dst @ports masquerade fully-random",
			one(metaL4Proto(firstReg), compare(firstReg, 0, []byte{p.n}), ctOriginal(f.ctDst, firstReg), member("nodes", firstReg, false),
				ctOriginal(ctProtoDst, firstReg), member("ports", firstReg, false), masquerade()),
		})
	}
	return rules
}

// outSlot is the first slot of the endpoints for clients outside.
const outSlot = 1 << 16

// slots is where the endpoints of a class begin.
func (c class) slots() (offset uint32, text string) {
	if c.outside {
		return outSlot, " offset " + strconv.Itoa(outSlot)
	}
	return 0, ""
}

// class is the chain of that name: it chooses among n endpoints, or notes clients. The last rule of a choice catches the packet that looked up its chain before
// a commit and its endpoint after it: slot 0 always exists.
func (f *family) class(name string) chain {
	c, ok := parseClass(name)
	if !ok {
		panic("nft: no class chain: " + name)
	}
	if c.keep > 0 {
		return chain{name: name, rules: []rule{f.notes(c.keep)}}
	}
	offset, text := c.slots()
	pick := func(mod uint32) rule {
		return rule{
			fmt.Sprintf("dnat %s to %s daddr . meta l4proto . th dport . numgen random mod %d%s map @eps", f.name, f.ip, mod, text),
			join(f.dial(firstReg), one(random(firstReg+f.size/4+2, mod, offset), mapped("eps", firstReg, firstReg),
				dnat(f.nf, firstReg, firstReg+f.size/4))),
		}
	}
	rules := []rule{pick(c.n), pick(1)}
	if c.sticky {
		rules = append([]rule{f.remembered()}, rules...)
	}
	return chain{name: name, rules: rules}
}

// dial loads what a client dials: destination address, protocol and port.
func (f *family) dial(reg uint32) []expr {
	return one(f.daddr(reg), metaL4Proto(reg+f.size/4), payload(2, 2, 2, reg+f.size/4+1))
}

func (f *family) saddr(reg uint32) expr { return payload(1, f.src, f.size, reg) }
func (f *family) daddr(reg uint32) expr { return payload(1, f.dst, f.size, reg) }

func one(xs ...expr) []expr { return xs }

func join(parts ...[]expr) []expr {
	var out []expr
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}
