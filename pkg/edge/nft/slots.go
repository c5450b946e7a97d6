// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/portal"
)

// Endpoints keep their slots while others come and go, so that of a service with thousands of them a change touches two
// elements and not all behind the one that changed. Which slot an endpoint has means nothing to anybody: a Table sorts its
// endpoints, and where their slots are not in that order the table of the kernel remembers it.

// slotsKey is one list of slots: those of a portal for clients inside, or outside.
type slotsKey struct {
	portal.Key
	outside bool
}

// arranged is p with its endpoints in the order of their slots.
func (t *table) arranged(k portal.Key, p portal.Portal) portal.Portal {
	if eps, ok := t.slots[slotsKey{k, false}]; ok {
		p.Endpoints = eps
	}
	if p.Outside != nil {
		if eps, ok := t.slots[slotsKey{k, true}]; ok {
			p.Outside = &portal.Choice{Endpoints: eps, OnEmpty: p.Outside.OnEmpty}
		}
	}
	return p
}

// rearrange gives slots to what a portal has now, given what stood in them; now may be nil.
func (t *table) rearrange(k portal.Key, was [2][]netip.AddrPort, now *portal.Portal) {
	var want [2][]netip.AddrPort
	if now != nil {
		if want[0] = now.Endpoints; now.Outside != nil {
			want[1] = now.Outside.Endpoints
		}
	}
	for i, sorted := range want {
		key := slotsKey{k, i == 1}
		if eps := settle(was[i], sorted); slices.Equal(eps, sorted) {
			delete(t.slots, key)
		} else {
			t.slots[key] = eps
		}
	}
}

// settle lists the endpoints that are wanted, which are sorted, so that as many as can be stay where they were.
func settle(was, want []netip.AddrPort) []netip.AddrPort {
	if len(was) == 0 || slices.Equal(was, want) {
		return want
	}
	out, taken, placed := make([]netip.AddrPort, len(want)), make([]bool, len(want)), make([]bool, len(want))
	for slot, ep := range was[:min(len(was), len(want))] {
		if i, ok := slices.BinarySearchFunc(want, ep, netip.AddrPort.Compare); ok && !placed[i] {
			out[slot], taken[slot], placed[i] = ep, true, true
		}
	}
	slot := 0
	for i, ep := range want {
		if placed[i] {
			continue
		}
		for taken[slot] {
			slot++
		}
		out[slot], taken[slot] = ep, true
	}
	return out
}

// both are the endpoints of a portal for clients inside and outside.
func both(p portal.Portal) (eps [2][]netip.AddrPort) {
	if eps[0] = p.Endpoints; p.Outside != nil {
		eps[1] = p.Outside.Endpoints
	}
	return eps
}

// adopt takes over the slots that endpoints have in the kernel.
func (t *table) adopt(next *portal.Table, have map[elemKey]string) {
	t.slots = map[slotsKey][]netip.AddrPort{}
	if len(have) == 0 {
		return
	}
	for k, p := range next.Portals {
		if !t.mine(k) {
			continue
		}
		var was [2][]netip.AddrPort
		dial := dialKey(k)
		for i, offset := range []uint32{0, outSlot} {
			for slot := offset; ; slot++ {
				v, ok := have[elemKey{set: setEps, key: dial + string(native(slot))}]
				if !ok {
					break
				}
				ep, _ := t.f.endpoint([]byte(v))
				was[i] = append(was[i], ep)
			}
		}
		t.rearrange(k, was, &p)
	}
}
