// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// forget ends the kernel's memory of flows that are led elsewhere than want says: the kernel asks the rules only about the
// first packet of one. A busy UDP flow would never end by itself; and where a connection went past a portal that was not
// there yet, the kernel knows it for two minutes, and the next one from the same port is refused. It is done when
// a portal has changed so that there may be such flows, and at first, because services may have changed while nobody looked.
// What cannot be done is tried again at the next Sync: the portals are in force all the same.
func (k *Keeper) forget(want Desired) {
	k.mu.Lock()
	first := k.lastSync.IsZero()
	k.mu.Unlock()
	if k.o.Flows == nil {
		return
	}
	ports, said := k.o.Proxy.Ports(), k.flowsError
	k.flowsError = ""
	for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		led, few := k.d.leaves(p)
		if all := first || said != "" || !few; all {
			led = nil
		} else if len(led) == 0 {
			continue
		}
		if err := k.o.Flows(p, led, func(f Led) bool { return k.d.stale(want, ports, p, f.To, f.By) }); err != nil {
			if k.flowsError = err.Error(); k.flowsError != said {
				k.o.Log.Warn("stale flows stay", "protocol", p.String(), "error", err)
			}
		}
	}
}

// Led names flows by where they were sent to and who answers them, or would; the same address: they went past every portal.
type Led struct{ To, By netip.AddrPort }

// fewLed is how many are ended one by one before one look at all flows is cheaper.
const fewLed = 64

// leaves lists flows that may be there and are not led as they should be any more: past portals that have come, and, of UDP,
// to endpoints that have gone. A connection that waits for such an endpoint is left to its client: to look for it takes
// milliseconds of each change on a busy node. It is not few when there are too many, or when nobody knows their names.
func (d *decider) leaves(p service.Protocol) (led []Led, few bool) {
	for key, was := range d.before {
		now := d.answered(key)
		if key.Protocol != p || was.by == now.by && now.by != NFTables {
			continue
		}
		if was.by == Userspace || now.by == Userspace {
			return nil, false
		}
		to := netip.AddrPortFrom(key.Addr, key.Port)
		if was.by == nobody {
			led = append(led, Led{to, to})
		}
		if p != service.UDP {
			continue
		}
		for by := range gone(was.Portal, now.Portal) {
			if led = append(led, Led{to, by}); len(led) > fewLed {
				return nil, false
			}
		}
	}
	return led, len(led) <= fewLed
}

// gone lists the endpoints of one portal that are none of the other's.
func gone(was, now portal.Portal) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for _, eps := range [][]netip.AddrPort{was.Endpoints, was.For(false).Endpoints} {
			for _, ep := range eps {
				if !has(now, ep) && !yield(ep) {
					return
				}
			}
			if was.Outside == nil {
				return
			}
		}
	}
}

func has(p portal.Portal, ep netip.AddrPort) bool {
	if _, ok := slices.BinarySearchFunc(p.Endpoints, ep, netip.AddrPort.Compare); ok || p.Outside == nil {
		return ok
	}
	_, ok := slices.BinarySearchFunc(p.Outside.Endpoints, ep, netip.AddrPort.Compare)
	return ok
}

// stale reports that a flow which was sent to one address and is answered by another (or by the same: nothing led it) is
// not led as it should be.
func (d *decider) stale(want Desired, ports map[portal.Key]uint16, proto service.Protocol, to, by netip.AddrPort) bool {
	key := portal.Key{Addr: to.Addr(), Protocol: proto, Port: to.Port()}
	if p, ok := want.Kernel.Portals[key]; ok {
		return !has(p, by)
	}
	if _, ok := want.User.Portals[key]; ok {
		return by.Port() != ports[key]
	}
	ours := d.before[key].by != nobody || slices.ContainsFunc(want.Kernel.Nets, func(p netip.Prefix) bool { return p.Contains(to.Addr()) })
	return ours && by != to
}
