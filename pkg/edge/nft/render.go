// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/portal"
)

// Render prints what Apply would make of t in an empty kernel, in nft(8)'s words. Families with nothing to do are left
// out.
func Render(t portal.Table) string {
	var b strings.Builder
	for _, f := range []*family{ip4, ip6} {
		tab := services(f)
		if f == ip6 && !tab.used(&t) {
			continue
		}
		elems, _ := tab.wanted(&t)
		fmt.Fprintf(&b, "table %s %s {\n", f.name, tab.name)
		printSets(&b, f, elems)
		chains := f.chains()
		for _, name := range tab.needed(compareElems(elems, nil)) {
			chains = append(chains, f.class(name))
		}
		for _, c := range chains {
			printChain(&b, c)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func printSets(b *strings.Builder, f *family, elems map[elemKey]string) {
	keys := slices.SortedFunc(maps.Keys(elems), func(a, b elemKey) int {
		return strings.Compare(string(rune(a.set))+a.key+a.end+string(rune(a.mark)), string(rune(b.set))+b.key+b.end+string(rune(b.mark)))
	})
	for id, s := range f.sets() {
		word, typ := "set", typeNames(f, s.key)
		if s.flags()&flagMap != 0 {
			word, typ = "map", typ+" : "+typeNames(f, s.data)
		}
		if s.verdicts {
			typ += "verdict"
		}
		fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", word, s.name, typ)
		if s.interval {
			b.WriteString("\t\tflags interval\n")
		}
		if s.dynamic {
			fmt.Fprintf(b, "\t\tsize %d\n\t\tflags dynamic,timeout\n", maxClients)
		}
		var out []string
		for _, k := range keys {
			if k.set == setID(id) && k.mark == 0 { //nolint:gosec // a dozen
				out = append(out, printElem(f, s, k, elems))
			}
		}
		if len(out) > 0 {
			fmt.Fprintf(b, "\t\telements = { %s }\n", strings.Join(out, ",\n\t\t\t     "))
		}
		b.WriteString("\t}\n")
	}
}

func typeNames(f *family, types []uint32) string {
	var out []string
	for _, t := range types {
		out = append(out, map[uint32]string{f.addrType: f.typeName, typeProto: "inet_proto", typeService: "inet_service", typeMark: "mark"}[t])
	}
	return strings.Join(out, " . ")
}

func printElem(f *family, s set, k elemKey, elems map[elemKey]string) string {
	text := printKey(f, s.key, k.key)
	switch {
	case s.interval && k.end != "":
		from, to := printKey(f, s.key[3:], k.key[len(k.key)-int(f.size):]), printKey(f, s.key[3:], k.end[len(k.end)-int(f.size):])
		text = printKey(f, s.key[:3], k.key) + " . " + from + "-" + to
	case s.interval:
		text += intervalEnd(f, k, elems)
	}
	switch v := elems[k]; {
	case v == toDrop || v == toAccept:
		return text + " : " + v
	case s.comeBack:
		return text + " : jump " + v
	case s.verdicts:
		return text + " : goto " + v
	case s.data != nil:
		return text + " : " + printKey(f, s.data, v)
	}
	return text
}

// intervalEnd finds the element that ends the interval which k begins: the least end above it.
func intervalEnd(f *family, k elemKey, elems map[elemKey]string) string {
	end := ""
	for e := range elems {
		if e.set == k.set && e.mark == elemIntervalEnd && e.key > k.key && (end == "" || e.key < end) {
			end = e.key
		}
	}
	last := f.last()
	if end != "" {
		a, _ := netip.AddrFromSlice([]byte(end))
		last = a.Prev()
	}
	return "-" + last.String()
}

func (f *family) last() netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(strings.Repeat("\xff", int(f.size))))
	return a
}

func printKey(f *family, types []uint32, key string) string {
	var out []string
	b := []byte(key)
	for _, t := range types {
		switch t {
		case f.addrType:
			a, _ := netip.AddrFromSlice(b[:f.size])
			out = append(out, a.String())
			b = b[f.size:]
			continue
		case typeProto:
			out = append(out, map[byte]string{6: "tcp", 17: "udp", 132: "sctp"}[b[0]])
		case typeService:
			out = append(out, fmt.Sprint(binary.BigEndian.Uint16(b)))
		default:
			out = append(out, fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(b)))
		}
		b = b[min(4, len(b)):]
	}
	return strings.Join(out, " . ")
}

func printChain(b *strings.Builder, c chain) {
	fmt.Fprintf(b, "\tchain %s {\n", c.name)
	if c.kind != "" {
		hooks := [...]string{"prerouting", "input", "forward", "output", "postrouting"}
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.kind, hooks[c.hook], c.priority)
	}
	for _, r := range c.rules {
		fmt.Fprintf(b, "\t\t%s\n", r.text)
	}
	b.WriteString("\t}\n")
}
