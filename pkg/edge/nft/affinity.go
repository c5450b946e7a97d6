// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// Session affinity needs nothing for each service but an element either. All clients of all services stand in the map aff,
// which packets fill: the first one of a flow leaves its endpoint there on its way out, when it has been translated, or
// renews what stands there (nftables' update leaves the value of an element that exists alone). The class chains a3 and b3
// look there before they choose. How long it stands is a matter of the chain that the map keep leads to: k10800. Where the
// map is full, clients are served without being noted.

// maxClients bounds the map: about 100 bytes each.
const maxClients = 1 << 20

// class is what the name of a chain says that maps lead to: a choice among n endpoints, for clients inside or outside, with
// or without memory; or, without n, how many seconds to remember.
type class struct {
	n       uint32
	outside bool
	sticky  bool
	keep    uint32
}

// name is n3, x3 (outside), a3 or b3 (the same with memory), or k10800.
func (c class) name() string {
	switch {
	case c.n == 0:
		return "k" + strconv.FormatUint(uint64(c.keep), 10)
	case c.sticky && c.outside:
		return "b" + strconv.FormatUint(uint64(c.n), 10)
	case c.sticky:
		return "a" + strconv.FormatUint(uint64(c.n), 10)
	case c.outside:
		return "x" + strconv.FormatUint(uint64(c.n), 10)
	}
	return "n" + strconv.FormatUint(uint64(c.n), 10)
}

// parseClass reads a name; ok is false for a chain that is no class.
func parseClass(name string) (c class, ok bool) {
	if name == "" {
		return class{}, false
	}
	n, err := strconv.ParseUint(name[1:], 10, 32)
	if err != nil || n == 0 || n > 0xffff && name[0] != 'k' {
		return class{}, false
	}
	if name[0] == 'k' {
		c.keep = uint32(n)
	} else {
		c = class{n: uint32(n), outside: name[0] == 'x' || name[0] == 'b', sticky: name[0] == 'a' || name[0] == 'b'}
	}
	return c, c.name() == name
}

// keepFor is a service's affinity in whole seconds.
func keepFor(p portal.Portal) uint32 {
	return uint32(min((p.Affinity+time.Second-1)/time.Second, 1<<31)) //nolint:gosec // bounded
}

// remembered leads a client that is known to its endpoint.
func (f *family) remembered() rule {
	return rule{
		fmt.Sprintf("dnat %s to %s daddr . meta l4proto . th dport . %s saddr map @aff", f.name, f.ip, f.ip),
		join(f.dial(firstReg), one(f.saddr(firstReg+f.size/4+2), mapped("aff", firstReg, firstReg), dnat(f.nf, firstReg, firstReg+f.size/4))),
	}
}

// original loads what a client has dialled before it was translated.
func (f *family) original(reg uint32) []expr {
	return one(ctOriginal(f.ctDst, reg), metaL4Proto(reg+f.size/4), ctOriginal(ctProtoDst, reg+f.size/4+1))
}

// remember leads flows of services with affinity to the chain that notes them.
func (f *family) remember() rule {
	return rule{
		"ct original " + f.ip + " daddr . meta l4proto . ct original proto-dst vmap @keep",
		join(f.original(firstReg), one(mapped("keep", firstReg, verdictReg))),
	}
}

// notes is the chain that notes a client for so many seconds.
func (f *family) notes(secs uint32) rule {
	saddr := firstReg + f.size/4 + 2
	data := saddr + f.size/4
	return rule{
		fmt.Sprintf("update @aff { ct original %s daddr . meta l4proto . ct original proto-dst . %s saddr timeout %s : %s daddr . th dport }", f.ip, f.ip, spell(secs), f.ip),
		join(f.original(firstReg), one(f.saddr(saddr), f.daddr(data), payload(2, 2, 2, data+f.size/4), noted("aff", firstReg, data, secs))),
	}
}

// spell is a time as nft prints it.
func spell(secs uint32) string {
	out := ""
	for _, u := range []struct {
		name string
		size uint32
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}} {
		if secs >= u.size {
			out += strconv.FormatUint(uint64(secs/u.size), 10) + u.name
			secs %= u.size
		}
	}
	return out
}

// noted puts key and value in a dynamic map, or renews the key that is there.
func noted(set string, key, data, secs uint32) expr {
	return expr{"dynset", func(e *enc) {
		e.str(1, set)
		e.u32(3, 1) // NFT_DYNSET_OP_UPDATE
		e.u32(4, key)
		e.u32(5, data)
		e.u64(6, uint64(secs)*1000)
	}}
}

// sweeps reports that a change leaves clients with endpoints that they must not have any more.
func sweeps(changed []portal.Change) bool {
	return slices.ContainsFunc(changed, func(c portal.Change) bool {
		if c.Was == nil || c.Was.Affinity == 0 {
			return false
		}
		gone := func(ep netip.AddrPort) bool { return !mayHave(c.Now, ep) }
		return slices.ContainsFunc(c.Was.Endpoints, gone) || c.Was.Outside != nil && slices.ContainsFunc(c.Was.Outside.Endpoints, gone)
	})
}

func mayHave(p *portal.Portal, ep netip.AddrPort) bool {
	return p != nil && p.Affinity > 0 && (slices.Contains(p.Endpoints, ep) || p.Outside != nil && slices.Contains(p.Outside.Endpoints, ep))
}

// sweep makes the kernel forget clients of endpoints that they must not have any more. A client whose time ends meanwhile
// is gone already, which fails the transaction: then what is left is looked for again.
func (d *DataPlane) sweep(tab *table, next *portal.Table) error {
	for range 10 {
		stale, err := d.c.stale(tab, next)
		if err != nil || len(stale) == 0 {
			return err
		}
		for len(stale) > 0 {
			var b batch
			n := min(len(stale), max(1, d.c.limit/elemSize))
			tab.elements(&b, stale[:n])
			if err = d.c.commit(&b); err != nil {
				break
			}
			stale = stale[n:]
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget clients: %w", err)
		}
	}
	return errors.New("forget clients: they never stood still")
}

// stale lists those clients.
func (c *conn) stale(tab *table, next *portal.Table) ([]change, error) {
	var out []change
	fill := func(e *enc) { e.str(attrElemsTable, tab.name); e.str(attrElemsSet, tab.sets[setAff].name) }
	err := c.dump(msgGetSetElem, tab.f.nf, fill, func() { out = nil }, func(b []byte) {
		attrs(attr(b, attrElemsList), func(_ uint16, e []byte) {
			key, ep := attr(e, attrElemKey, attrDataValue), attr(e, attrElemData, attrDataValue)
			k, ok := tab.f.dialled(key)
			to, fits := tab.f.endpoint(ep)
			if p, held := next.Portals[k]; ok && fits && held && mayHave(&p, to) {
				return
			}
			out = append(out, change{elemKey: elemKey{set: setAff, key: string(key)}, had: true})
		})
	})
	return out, err
}

// dialled reads what dialKey has laid out.
func (f *family) dialled(key []byte) (portal.Key, bool) {
	n := int(f.size)
	if len(key) < n+6 {
		return portal.Key{}, false
	}
	a, ok := netip.AddrFromSlice(key[:n])
	return portal.Key{Addr: a, Protocol: service.Protocol(key[n]), Port: uint16(key[n+4])<<8 | uint16(key[n+5])}, ok
}

// endpoint reads what the function of that name has laid out.
func (f *family) endpoint(v []byte) (netip.AddrPort, bool) {
	n := int(f.size)
	if len(v) < n+2 {
		return netip.AddrPort{}, false
	}
	a, ok := netip.AddrFromSlice(v[:n])
	return netip.AddrPortFrom(a, uint16(v[n])<<8|uint16(v[n+1])), ok
}
