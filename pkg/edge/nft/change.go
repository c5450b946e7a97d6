// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"slices"
)

// change is one element that comes, goes or gets another value.
type change struct {
	elemKey
	old, new string
	had, has bool
}

// phase orders changes so that a packet between any two of them finds what it was promised: endpoints before the chain
// that draws one of them, chains up before and down after. Intervals that go make room first: the kernel takes none that
// overlaps another. All of it is one transaction unless it is too large for one.
func (c change) phase() int {
	switch {
	case !c.has && slices.Contains(intervals, c.set):
		return 0
	case c.set == setSvc, c.set == setOut, c.set == setNone, c.set == setNoneOut, c.set == setKeep:
		return 2
	case c.has:
		return 1
	}
	return 3
}

// phases is how many there are.
const phases = 4

// intervals are the sets whose elements are ranges.
var intervals = []setID{setAdmit, setHere, setNets}

// order puts changes in the order of their phases, those of one set side by side, and intervals in theirs: the kernel wants
// to see where one begins before it sees where it ends.
func order(cs []change) []change {
	const sets = 32
	var count, at [phases * sets]int
	place := func(c change) int { return c.phase()*sets + int(c.set) }
	for _, c := range cs {
		count[place(c)]++
	}
	for i := 1; i < len(at); i++ {
		at[i] = at[i-1] + count[i-1]
	}
	out := make([]change, len(cs))
	for _, c := range cs {
		out[at[place(c)]] = c
		at[place(c)]++
	}
	for phase := range phases {
		for _, id := range intervals {
			end := at[phase*sets+int(id)]
			slices.SortFunc(out[end-count[phase*sets+int(id)]:end], func(a, b change) int {
				return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.mark, b.mark), cmp.Compare(a.end, b.end))
			})
		}
	}
	return out
}

// Elements in one message: its list is an attribute, whose length is 16 bits.
const perMessage = 400

// elemSize bounds the bytes of one element in a message, both directions of a replacement together.
const elemSize = 2 * 112

// write appends the changes to b in order; flush is called when b is full and must empty it.
func (t *table) write(b *batch, limit int, cs []change, flush func() error) error {
	cs = order(cs)
	for len(cs) > 0 {
		now := cs[0].phase()
		end := slices.IndexFunc(cs, func(c change) bool { return c.phase() != now })
		if end < 0 {
			end = len(cs)
		}
		phase := cs[:end]
		for cs = cs[end:]; len(phase) > 0; {
			room := (limit - len(b.e.b)) / elemSize
			if room < 1 && b.n > 0 {
				if err := flush(); err != nil {
					return err
				}
				continue
			}
			n := min(len(phase), max(room, 1))
			t.elements(b, phase[:n])
			phase = phase[n:]
		}
	}
	return nil
}

// elements removes what had a value, then adds what has one: the kernel refuses to add a key with another value.
func (t *table) elements(b *batch, cs []change) {
	t.list(b, msgDelSetElem, 0, cs, func(c change) (string, bool) { return c.old, c.had })
	t.list(b, msgNewSetElem, flagCreate, cs, func(c change) (string, bool) { return c.new, c.has })
}

// list writes the messages of one direction, one or more for each set.
func (t *table) list(b *batch, typ, flags uint16, cs []change, pick func(change) (string, bool)) {
	sets := t.sets
	for i := 0; i < len(cs); {
		id, n := cs[i].set, 0
		var es []change
		for ; i < len(cs) && cs[i].set == id && n < perMessage; i++ {
			if _, ok := pick(cs[i]); ok {
				es = append(es, cs[i])
				n++
			}
		}
		if len(es) == 0 {
			continue
		}
		b.msg(typ, flags, t.f.nf, func(e *enc) {
			e.str(attrElemsTable, t.name)
			e.str(attrElemsSet, sets[id].name)
			end := e.nest(attrElemsList)
			for _, c := range es {
				v, _ := pick(c)
				putElement(e, sets[id], c.elemKey, v)
			}
			end()
		})
	}
}

func putElement(e *enc, s set, k elemKey, v string) { putNoted(e, s, k, v, "") }

// follow is how a verdict map leads to a chain: what only takes a note comes back.
func (s set) follow() uint32 {
	if s.comeBack {
		return verdictJump
	}
	return verdictGoto
}

// putNoted writes an element with a comment; none if it is empty.
func putNoted(e *enc, s set, k elemKey, v, note string) {
	item := e.nest(attrList)
	value := func(typ uint16, v string) {
		end := e.nest(typ)
		e.bytes(attrDataValue, []byte(v))
		end()
	}
	value(attrElemKey, k.key)
	if k.end != "" {
		value(attrElemKeyEnd, k.end)
	}
	if k.mark != 0 {
		e.u32(attrElemFlags, uint32(k.mark))
	}
	switch {
	case s.verdicts:
		end := e.nest(attrElemData)
		switch v {
		case toDrop:
			putVerdict(e, verdictDrop, "")
		case toAccept:
			putVerdict(e, verdictAccept, "")
		default:
			putVerdict(e, s.follow(), v)
		}
		end()
	case s.data != nil:
		value(attrElemData, v)
	}
	if note != "" {
		e.bytes(attrElemUserdata, append([]byte{0, byte(len(note) + 1)}, note+"\x00"...)) // NFTNL_UDATA_SET_ELEM_COMMENT
	}
	item()
}
