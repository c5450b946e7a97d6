// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// table is one family's table and what we know to be in it.
type table struct {
	name    string
	f       *family
	sets    []set
	chains  []chain
	unused  bool                          // nothing of last is this family's, and the kernel was left alone
	known   bool                          // the rest of this is true
	last    portal.Table                  // by its identity; its Portals are not kept
	bad     map[service.Name]error        // what the kernel has refused, and why
	slots   map[slotsKey][]netip.AddrPort // of endpoints that are not in their order
	refs    map[elemKey]int               // how many portals ask for a shared element
	classes map[string]bool               // chains of endpoint counts that exist
	strays  batch                         // ends what others have left in the table
}

// services is portald's table of one family.
func services(f *family) *table {
	return &table{name: mark.TableServices, f: f, sets: f.sets(), chains: f.chains(), classes: map[string]bool{}, slots: map[slotsKey][]netip.AddrPort{}}
}

// mine is the part of t that this family programs.
func (t *table) mine(k portal.Key) bool { return k.Addr.Is4() == (t.f == ip4) }

// wanted is every element that the table must have, and how often the shared ones are asked for.
func (t *table) wanted(next *portal.Table) (elems map[elemKey]string, refs map[elemKey]int) {
	elems = make(map[elemKey]string, 4*len(next.Portals))
	refs = t.each(next, func(e elemKey, v string) { elems[e] = v })
	return elems, refs
}

// loaded is what turns an empty table into the one that is wanted.
func (t *table) loaded(next *portal.Table) (cs []change, refs map[elemKey]int) {
	cs = make([]change, 0, 6*len(next.Portals))
	refs = t.each(next, func(e elemKey, v string) { cs = append(cs, change{elemKey: e, new: v, has: true}) })
	return cs, refs
}

// each calls put with every element that the table must have, once, and counts how often the shared ones are asked for.
func (t *table) each(next *portal.Table, put func(elemKey, string)) (refs map[elemKey]int) {
	refs = make(map[elemKey]int, 3*len(next.Portals))
	for k, p := range next.Portals {
		if !t.mine(k) {
			continue
		}
		own(t.f, k, t.arranged(k, p), put)
		shared(next, k, p, func(e elemKey) { refs[e]++ })
	}
	for e := range refs {
		put(e, "")
	}
	fixed(t.f, next, func(e elemKey) { put(e, "") })
	return refs
}

// compareElems lists what turns have into want.
func compareElems(want, have map[elemKey]string) []change {
	cs := make([]change, 0, max(len(want), len(have))-min(len(want), len(have))+4)
	for k, v := range want {
		old, ok := have[k]
		if !ok || old != v {
			cs = append(cs, change{elemKey: k, old: old, had: ok, new: v, has: true})
		}
	}
	for k, old := range have {
		if _, ok := want[k]; !ok {
			cs = append(cs, change{elemKey: k, old: old, had: true})
		}
	}
	return cs
}

// step lists what leads from the last table to the next, looking only at what changed between them, and updates refs.
// It is undone by forgetting: after an error nothing is known and the kernel is read again.
func (t *table) step(next *portal.Table, changed []portal.Change) []change {
	var cs []change
	refs := map[elemKey]int{}
	for _, c := range changed {
		if !t.mine(c.Key) {
			continue
		}
		var slots [2][]netip.AddrPort
		have, want := make(map[elemKey]string, 8), make(map[elemKey]string, 8)
		if c.Was != nil {
			was := t.arranged(c.Key, *c.Was)
			slots = both(was)
			own(t.f, c.Key, was, func(e elemKey, v string) { have[e] = v })
			shared(&t.last, c.Key, *c.Was, func(e elemKey) { refs[e]-- })
		}
		t.rearrange(c.Key, slots, c.Now)
		if c.Now != nil {
			own(t.f, c.Key, t.arranged(c.Key, *c.Now), func(e elemKey, v string) { want[e] = v })
			shared(next, c.Key, *c.Now, func(e elemKey) { refs[e]++ })
		}
		cs = append(cs, compareElems(want, have)...)
	}
	for e, n := range refs {
		before := t.refs[e]
		switch after := before + n; {
		case n == 0:
		case before == 0:
			cs, t.refs[e] = append(cs, change{elemKey: e, has: true}), after
		case after == 0:
			cs = append(cs, change{elemKey: e, had: true})
			delete(t.refs, e)
		default:
			t.refs[e] = after
		}
	}
	return cs
}

// needed are the class chains that changes lead to and that do not exist yet.
func (t *table) needed(cs []change) []string {
	names := map[string]bool{}
	for _, c := range cs {
		if (c.set == setSvc || c.set == setOut || c.set == setKeep) && c.has && c.new != toAccept && !t.classes[c.new] {
			names[c.new] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// putChain makes a chain, or takes it over, with exactly its rules.
func (t *table) putChain(b *batch, c chain) {
	t.putChainName(b, c)
	t.putRules(b, c)
}

func (t *table) putChainName(b *batch, c chain) {
	b.msg(msgNewChain, flagCreate, t.f.nf, func(e *enc) {
		e.str(attrChainTable, t.name)
		e.str(attrChainName, c.name)
		if c.kind == "" {
			return
		}
		end := e.nest(attrChainHook)
		e.u32(attrHookNum, c.hook)
		e.u32(attrHookPriority, uint32(c.priority)) //nolint:gosec // two's complement, as the kernel wants it
		end()
		e.u32(attrChainPolicy, verdictAccept)
		e.str(attrChainType, c.kind)
	})
}

func (t *table) putRules(b *batch, c chain) {
	t.dropRules(b, c.name)
	for _, r := range c.rules {
		b.msg(msgNewRule, flagCreate|flagAppend, t.f.nf, func(e *enc) {
			e.str(attrRuleTable, t.name)
			e.str(attrRuleChain, c.name)
			r.put(e)
		})
	}
}

func (t *table) dropRules(b *batch, chain string) {
	b.msg(msgDelRule, 0, t.f.nf, func(e *enc) { e.str(attrRuleTable, t.name); e.str(attrRuleChain, chain) })
}

func (t *table) dropChain(b *batch, name string) {
	t.dropRules(b, name)
	b.msg(msgDelChain, 0, t.f.nf, func(e *enc) { e.str(attrChainTable, t.name); e.str(attrChainName, name) })
}

func (t *table) putTable(b *batch) {
	b.msg(msgNewTable, flagCreate, t.f.nf, func(e *enc) { e.str(attrTableName, t.name) })
}

func (t *table) putSet(b *batch, id setID, s set) {
	b.msg(msgNewSet, flagCreate, t.f.nf, func(e *enc) {
		e.str(attrSetTable, t.name)
		e.str(attrSetName, s.name)
		e.u32(attrSetFlags, s.flags())
		e.u32(attrSetKeyType, concat(s.key))
		e.u32(attrSetKeyLen, t.f.length(s.key))
		if s.verdicts {
			e.u32(attrSetDataType, typeVerdict)
			e.u32(attrSetDataLen, 0)
		} else if s.data != nil {
			e.u32(attrSetDataType, concat(s.data))
			e.u32(attrSetDataLen, t.f.length(s.data))
		}
		if s.dynamic {
			desc := e.nest(attrSetDesc)
			e.u32(attrDescSize, maxClients)
			desc()
		}
		if s.interval && len(s.key) > 1 { // pipapo wants to know its fields
			desc := e.nest(attrSetDesc)
			fields := e.nest(attrDescConcat)
			for _, k := range s.key {
				item := e.nest(attrList)
				e.u32(1, t.f.fieldLen(k))
				item()
			}
			fields()
			desc()
		}
		e.u32(attrSetID, uint32(id)+1)
	})
}

// fieldLen is a field's real length; the kernel rounds it up itself.
func (f *family) fieldLen(datatype uint32) uint32 {
	switch datatype {
	case f.addrType:
		return f.size
	case typeProto:
		return 1
	case typeService:
		return 2
	}
	return 4
}

func (s set) flags() uint32 {
	var n uint32
	if s.verdicts || s.data != nil {
		n |= flagMap
	}
	if s.dynamic {
		n |= flagTimeout | flagEval
	}
	if s.interval {
		n |= flagInterval
		if len(s.key) > 1 {
			n |= flagConcat
		}
	}
	return n
}
