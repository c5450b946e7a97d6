// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
)

// VIPs is what a routing daemon needs to know before it brings traffic for service addresses to this node. Its JSON is
// portald's answer to GET /vips.
type VIPs struct {
	State     string         `json:"state"` // names this answer; ask with it for the next one
	Synced    bool           `json:"synced"`
	LastError string         `json:"lastError,omitzero"`
	Nets      []netip.Prefix `json:"portalNets"`
	VIPs      []VIP          `json:"vips"` // outside the portal nets, sorted; node ports are none
}

// VIP is one service address outside the portal nets.
type VIP struct {
	Addr netip.Addr `json:"vip"`
	// Ready counts the endpoints that answer clients from elsewhere: of the whole cluster, or, with
	// externalTrafficPolicy Local, those on this node.
	Ready int `json:"ready"`
}

// rings wakes those who wait for news of what is in force. The zero value is ready for use.
type rings struct {
	mu sync.Mutex
	ch chan struct{}
}

// next is closed at the next ring.
func (r *rings) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ch == nil {
		r.ch = make(chan struct{})
	}
	return r.ch
}

func (r *rings) ring() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ch != nil {
		close(r.ch)
		r.ch = nil
	}
}

// VIPs returns what is in force as soon as it is not what after names, or when ctx ends. An empty after is answered at once.
func (k *Keeper) VIPs(ctx context.Context, after string) VIPs {
	for {
		news := k.moved.next()
		v, behind := k.vips()
		if v.State != after || ctx.Err() != nil {
			return v
		}
		var late <-chan time.Time
		if behind { // it may become untrue by the mere passing of time
			late = time.After(moment)
		}
		select {
		case <-news:
		case <-late:
		case <-ctx.Done():
		}
	}
}

// vips is the answer now, and whether the kernel is behind.
func (k *Keeper) vips() (v VIPs, behind bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v = VIPs{Synced: k.synced(), LastError: k.lastError, Nets: k.nets, VIPs: []VIP{}}
	if k.d != nil {
		ready := map[netip.Addr]int{}
		for key, p := range k.d.held() {
			if p.Kind != portal.NodePort && !slices.ContainsFunc(k.nets, func(n netip.Prefix) bool { return n.Contains(key.Addr) }) {
				ready[key.Addr] = max(ready[key.Addr], len(p.For(false).Endpoints))
			}
		}
		for a, n := range ready {
			v.VIPs = append(v.VIPs, VIP{a, n})
		}
		slices.SortFunc(v.VIPs, func(a, b VIP) int { return a.Addr.Compare(b.Addr) })
	}
	h := fnv.New64a()
	_ = json.NewEncoder(h).Encode(v) // plain values into a hash
	v.State = fmt.Sprintf("%x", h.Sum64())
	return v, !k.behind.IsZero()
}
