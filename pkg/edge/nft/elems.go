// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"net/netip"

	"go4.org/netipx"

	"github.com/l3edge/l3edge/pkg/core/portal"
)

// elemKey identifies an element; end is the upper bound of an interval of several fields, mark the flags.
type elemKey struct {
	set      setID
	key, end string
	mark     uint8
}

// Values of verdict maps other than chains' names.
const (
	toDrop   = "drop"
	toAccept = "accept"
	toRefuse = "refuse"
)

// own are the elements that belong to one portal alone; its value is a chain or verdict, an endpoint, or nothing.
func own(f *family, k portal.Key, p portal.Portal, put func(elemKey, string)) {
	dial := dialKey(k)
	answer := func(c portal.Choice, svc, none setID, kind class) {
		slot, _ := kind.slots()
		switch n := len(c.Endpoints); {
		case n > 0:
			kind.n, kind.sticky = uint32(min(n, 0xffff)), p.Affinity > 0 //nolint:gosec // bounded
			put(elemKey{set: svc, key: dial}, kind.name())
			for i, ep := range c.Endpoints[:min(n, 0xffff)] {
				put(elemKey{set: setEps, key: dial + string(native(slot+uint32(i)))}, endpoint(ep)) //nolint:gosec // below 2^16
			}
		case c.OnEmpty == portal.Drop:
			put(elemKey{set: none, key: dial}, toDrop)
		default:
			put(elemKey{set: none, key: dial}, toRefuse)
		}
	}
	answer(p.For(true), setSvc, setNone, class{})
	if p.Outside != nil {
		answer(*p.Outside, setOut, setNoneOut, class{outside: true})
		if len(p.Outside.Endpoints) == 0 {
			put(elemKey{set: setOut, key: dial}, toAccept) // past the chain for clients inside, to the filter
		}
	}
	if p.Affinity > 0 {
		put(elemKey{set: setKeep, key: dial}, class{keep: keepFor(p)}.name())
	}
	if len(p.Sources) > 0 {
		put(elemKey{set: setFence, key: dial}, "")
		for _, r := range ranges(f, p.Sources) {
			put(elemKey{set: setAdmit, key: dial + addrKey(r.From()), end: dial + addrKey(r.To())}, "")
		}
	}
}

// shared are the elements that several portals may ask for.
func shared(t *portal.Table, k portal.Key, p portal.Portal, put func(elemKey)) {
	addr := addrKey(k.Addr)
	if t.Guarded(k.Addr, p.Kind) {
		put(elemKey{set: setVIPs, key: addr})
		if len(p.Endpoints) > 0 {
			put(elemKey{set: setPing, key: addr})
		}
	}
	switch {
	case !t.ComesBack(k, p):
	case p.Kind == portal.NodePort:
		put(elemKey{set: setNodes, key: addr})
		put(elemKey{set: setPorts, key: portKey(k.Port)})
	default:
		put(elemKey{set: setMasq, key: addr})
	}
	hairpin := func(eps []netip.AddrPort) {
		for _, ep := range eps {
			if a := ep.Addr(); t.MeetsItself(a) {
				put(elemKey{set: setHairpin, key: addrKey(a) + addrKey(a)})
			}
		}
	}
	hairpin(p.Endpoints)
	if p.Outside != nil {
		hairpin(p.Outside.Endpoints)
	}
}

// fixed are the elements of the table as a whole.
func fixed(f *family, t *portal.Table, put func(elemKey)) {
	here := t.Here
	if len(here) == 0 { // unknown: everything is, so that nothing is rewritten for the way back
		here = []netip.Prefix{netip.PrefixFrom(f.zero(), 0)}
	}
	for id, ps := range map[setID][]netip.Prefix{setHere: here, setNets: t.Nets} {
		for _, r := range ranges(f, ps) {
			put(elemKey{set: id, key: addrKey(r.From())})
			if end := r.To().Next(); end.IsValid() {
				put(elemKey{set: id, key: addrKey(end), mark: elemIntervalEnd})
			}
		}
	}
}

// ranges are the family's addresses in ps, without overlap: the kernel takes no interval twice.
func ranges(f *family, ps []netip.Prefix) []netipx.IPRange {
	var b netipx.IPSetBuilder
	for _, p := range ps {
		if p.Addr().Is4() == (f == ip4) {
			b.AddPrefix(p)
		}
	}
	s, err := b.IPSet()
	if err != nil {
		return nil // a prefix that is none: core lets no such through
	}
	return s.Ranges()
}

func (f *family) zero() netip.Addr {
	if f == ip4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func addrKey(a netip.Addr) string { return string(a.AsSlice()) }

func portKey(port uint16) string { return string(binary.BigEndian.AppendUint16(nil, port)) }

// dialKey lays out address . protocol . port, each padded to words.
func dialKey(k portal.Key) string {
	b := make([]byte, 0, 28)
	b = append(b, k.Addr.AsSlice()...)
	b = append(b, byte(k.Protocol), 0, 0, 0, byte(k.Port>>8), byte(k.Port), 0, 0)
	return string(b)
}

func endpoint(ep netip.AddrPort) string {
	b := append(make([]byte, 0, 20), ep.Addr().AsSlice()...)
	return string(append(b, byte(ep.Port()>>8), byte(ep.Port()), 0, 0))
}
