// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// forget ends the kernel's memory of UDP flows that are led elsewhere than want says. A busy flow would never end by
// itself: the kernel asks the rules only about its first packet. It is done when a UDP portal has changed, and at first,
// because services may have changed while nobody looked. What cannot be done is tried again at the next Sync: the portals
// are in force all the same.
func (k *Keeper) forget(want Desired) {
	k.mu.Lock()
	first := k.lastSync.IsZero()
	k.mu.Unlock()
	if k.o.Flows == nil || !first && k.flowsError == "" && !k.d.udpDiffers() {
		return
	}
	ports, said := k.o.Proxy.Ports(), k.flowsError
	k.flowsError = ""
	if err := k.o.Flows(func(to, by netip.AddrPort) bool { return k.d.stale(want, ports, to, by) }); err != nil {
		if k.flowsError = err.Error(); k.flowsError != said {
			k.o.Log.Warn("stale UDP flows stay", "error", err)
		}
	}
}

// udpDiffers reports that a UDP portal has come, gone or changed what it answers, or who answers it.
func (d *decider) udpDiffers() bool {
	for key, was := range d.before {
		if now := d.answered(key); key.Protocol == service.UDP && (was.by != now.by || !was.Equal(now.Portal)) {
			return true
		}
	}
	return false
}

// stale reports that a flow which was sent to one address and is answered by another (or by the same: nothing led it) is
// not led as it should be.
func (d *decider) stale(want Desired, ports map[portal.Key]uint16, to, by netip.AddrPort) bool {
	key := portal.Key{Addr: to.Addr(), Protocol: service.UDP, Port: to.Port()}
	if p, ok := want.Kernel.Portals[key]; ok {
		return !slices.Contains(p.Endpoints, by) && (p.Outside == nil || !slices.Contains(p.Outside.Endpoints, by))
	}
	if _, ok := want.User.Portals[key]; ok {
		return by.Port() != ports[key]
	}
	ours := d.before[key].by != nobody || slices.ContainsFunc(want.Kernel.Nets, func(p netip.Prefix) bool { return p.Contains(to.Addr()) })
	return ours && by != to
}
