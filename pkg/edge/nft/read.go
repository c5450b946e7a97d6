// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"slices"
)

// read looks at the table in the kernel, appends to b what is missing of its skeleton, and returns its elements.
// A set or base chain of another shape, as another version would make it, means starting anew within the same
// transaction; anything else is mended in place, so that no element that is right is touched.
func (c *conn) read(tab *table, b *batch) (map[elemKey]string, error) {
	have, err := c.skeleton(tab)
	if err != nil {
		return nil, err
	}
	have = tab.mend(have, b)
	tab.strays = batch{}
	have.strays(tab, &tab.strays)
	if !have.exists {
		return map[elemKey]string{}, nil
	}
	return c.elements(tab, have)
}

// mend appends to b what is missing of the table's skeleton.
func (c *conn) mend(tab *table, b *batch) error {
	have, err := c.skeleton(tab)
	if err == nil {
		tab.mend(have, b)
	}
	return err
}

// mend returns what of the kernel's table lives on.
func (tab *table) mend(have kernelTable, b *batch) kernelTable {
	tab.classes = map[string]bool{}
	if !have.fits(tab) {
		if have.exists {
			b.msg(msgDelTable, 0, tab.f.nf, func(e *enc) { e.str(attrTableName, tab.name) })
		}
		have = kernelTable{}
	}
	if !have.exists {
		tab.putTable(b)
	}
	for id, s := range tab.sets {
		if _, ok := have.sets[s.name]; !ok {
			tab.putSet(b, setID(id), s) //nolint:gosec // a dozen
		}
	}
	chains := slices.Clone(tab.chains)
	for name := range have.chains {
		if _, ok := parseClass(name); ok {
			chains = append(chains, tab.f.class(name))
			tab.classes[name] = true
		}
	}
	for _, ch := range chains {
		if got, ok := have.chains[ch.name]; !ok || ch.kind != "" && got.policy != verdictAccept {
			tab.putChainName(b, ch)
		}
	}
	for _, ch := range chains {
		if !ch.holds(have.rules[ch.name]) {
			tab.putRules(b, ch)
		}
	}
	for _, name := range have.foreign(tab) { // last: rules that led there are gone
		if have.chains[name].kind != "" {
			tab.dropChain(b, name)
		}
	}
	return have
}

// foreign are the chains that are not ours: another version's, or another tool's. A base chain among them sees all
// traffic.
func (k kernelTable) foreign(t *table) (names []string) {
	for name := range k.chains {
		_, class := parseClass(name)
		if !class && !slices.ContainsFunc(t.chains, func(c chain) bool { return c.name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// strays appends to b the end of the other foreign chains, and of foreign sets. Something that is not looked at here may
// still lead to them.
func (k kernelTable) strays(t *table, b *batch) {
	chains := slices.DeleteFunc(k.foreign(t), func(name string) bool { return k.chains[name].kind != "" })
	for _, name := range chains { // they may lead to one another
		t.dropRules(b, name)
	}
	for name := range k.sets {
		if !slices.ContainsFunc(t.sets, func(s set) bool { return s.name == name }) {
			b.msg(msgDelSet, 0, t.f.nf, func(e *enc) { e.str(attrSetTable, t.name); e.str(attrSetName, name) })
		}
	}
	for _, name := range chains {
		b.msg(msgDelChain, 0, t.f.nf, func(e *enc) { e.str(attrChainTable, t.name); e.str(attrChainName, name) })
	}
}

// kernelTable is what the kernel has of a table, its elements left out.
type kernelTable struct {
	exists  bool
	dormant bool // it is there, and asleep
	sets    map[string]shape
	chains  map[string]chainShape
	rules   map[string][]string // userdata of each rule by chain, in order
}

type shape struct{ flags, key, keyLen, data, dataLen uint32 }

type chainShape struct {
	kind     string
	hook     uint32
	priority int32
	policy   uint32 // mended in place
}

// fits reports that everything that exists has the shape that we would give it. A table that sleeps has not: it cannot be
// woken in a transaction that also makes a base chain.
func (k kernelTable) fits(t *table) bool {
	if k.dormant {
		return false
	}
	for _, s := range t.sets {
		if got, ok := k.sets[s.name]; ok && got != t.f.shape(s) {
			return false
		}
	}
	for _, c := range t.chains {
		if got, ok := k.chains[c.name]; ok && got != (chainShape{c.kind, c.hook, c.priority, got.policy}) {
			return false
		}
	}
	return true
}

func (f *family) shape(s set) shape {
	w := shape{flags: s.flags(), key: concat(s.key), keyLen: f.length(s.key)}
	if s.verdicts {
		w.data = typeVerdict
	} else if s.data != nil {
		w.data, w.dataLen = concat(s.data), f.length(s.data)
	}
	return w
}

func (c *conn) skeleton(t *table) (kernelTable, error) {
	var k kernelTable
	inTable := func(e *enc) { e.str(1, t.name) } // the first attribute of chains, rules and sets is their table
	err := c.dump(msgGetTable, t.f.nf, nil, func() { k.exists = false }, func(b []byte) {
		if attrString(b, attrTableName) == t.name {
			k.exists, k.dormant = true, attrU32(b, attrTableFlags)&flagDormant != 0
		}
	})
	if err != nil || !k.exists {
		return k, err
	}
	err = c.dump(msgGetSet, t.f.nf, inTable, func() { k.sets = map[string]shape{} }, func(b []byte) {
		if attrString(b, attrSetTable) != t.name {
			return
		}
		s := shape{attrU32(b, attrSetFlags), attrU32(b, attrSetKeyType), attrU32(b, attrSetKeyLen), attrU32(b, attrSetDataType), attrU32(b, attrSetDataLen)}
		if s.data == typeVerdict {
			s.dataLen = 0
		}
		k.sets[attrString(b, attrSetName)] = s
	})
	if err != nil {
		return k, err
	}
	err = c.dump(msgGetChain, t.f.nf, nil, func() { k.chains = map[string]chainShape{} }, func(b []byte) {
		if attrString(b, attrChainTable) != t.name {
			return
		}
		k.chains[attrString(b, attrChainName)] = chainShape{
			attrString(b, attrChainType), attrU32(b, attrChainHook, attrHookNum),
			int32(attrU32(b, attrChainHook, attrHookPriority)), //nolint:gosec // two's complement
			attrU32(b, attrChainPolicy),
		}
	})
	if err != nil {
		return k, err
	}
	k.rules, err = c.rules(t)
	return k, err
}

// rules lists the userdata of each rule of the table by chain, in order.
func (c *conn) rules(t *table) (rules map[string][]string, err error) {
	inTable := func(e *enc) { e.str(attrRuleTable, t.name) }
	err = c.dump(msgGetRule, t.f.nf, inTable, func() { rules = map[string][]string{} }, func(b []byte) {
		if attrString(b, attrRuleTable) == t.name {
			in := attrString(b, attrRuleChain)
			rules[in] = append(rules[in], string(attr(b, attrRuleUserdata)))
		}
	})
	return rules, err
}

// holds reports that the chain's rules are these.
func (ch chain) holds(marks []string) bool {
	return slices.EqualFunc(ch.rules, marks, func(r rule, m string) bool { return string(r.mark()) == m })
}

// elements lists what the sets hold.
func (c *conn) elements(t *table, k kernelTable) (map[elemKey]string, error) {
	all := map[elemKey]string{}
	for i, s := range t.sets {
		if _, ok := k.sets[s.name]; !ok || s.dynamic {
			continue
		}
		var part map[elemKey]string
		fill := func(e *enc) { e.str(attrElemsTable, t.name); e.str(attrElemsSet, s.name) }
		err := c.dump(msgGetSetElem, t.f.nf, fill, func() { part = map[elemKey]string{} }, func(b []byte) {
			attrs(attr(b, attrElemsList), func(_ uint16, e []byte) {
				key := elemKey{
					set: setID(i), key: string(attr(e, attrElemKey, attrDataValue)), //nolint:gosec // a dozen
					end: string(attr(e, attrElemKeyEnd, attrDataValue)), mark: uint8(attrU32(e, attrElemFlags)), //nolint:gosec // one bit
				}
				part[key] = readValue(s, e)
			})
		})
		if err != nil {
			return nil, err
		}
		for e, v := range part {
			all[e] = v
		}
	}
	return all, nil
}

func readValue(s set, e []byte) string {
	if !s.verdicts {
		return string(attr(e, attrElemData, attrDataValue))
	}
	v := attr(e, attrElemData, attrDataVerdict, attrVerdictCode)
	if len(v) < 4 {
		return ""
	}
	switch binary.BigEndian.Uint32(v) {
	case verdictDrop:
		return toDrop
	case verdictAccept:
		return toAccept
	}
	return attrString(e, attrElemData, attrDataVerdict, attrVerdictChain)
}
