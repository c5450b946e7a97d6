// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// offer is all best ways to one prefix. Both slices are shared between prefixes and never changed.
type offer struct {
	via []route.Via
	ids []uint32 // path identifiers (RFC 7911) beside via; nil when all are 0
}

func (o offer) id(i int) uint32 {
	if o.ids == nil {
		return 0
	}
	return o.ids[i]
}

// table holds the best ways to every prefix. gobgp tells changes only, through a queue without bound; we empty that
// queue at once into this table, whose size is bounded by the number of prefixes, and a slow reader finds prefixes that
// changed, not a history.
type table struct {
	mu      sync.Mutex
	offers  map[netip.Prefix]offer
	dirty   map[netip.Prefix]struct{}
	count   map[netip.Addr]int  // ways per peer
	single  map[route.Via]offer // offers of one way, of which there are as few as next hops
	changed chan struct{}
}

func (t *table) init() {
	t.offers, t.dirty, t.single = map[netip.Prefix]offer{}, map[netip.Prefix]struct{}{}, map[route.Via]offer{}
	t.count = map[netip.Addr]int{}
	t.changed = make(chan struct{}, 1)
}

// apply takes over changes and returns a peer that has named more than most ways; most 0: no limit. gobgp's own limit
// counts all that a peer sent anew with each message, which makes a large table quadratic.
func (t *table) apply(paths []*apiutil.Path, most int) (tooMuch netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.dirty)
	for _, p := range paths {
		if p == nil || p.Family != bgp.RF_IPv4_UC || !p.PeerAddress.IsValid() { // without a peer it is our own
			continue
		}
		nlri, ok := p.Nlri.(*bgp.IPAddrPrefix)
		if !ok {
			continue
		}
		before := t.offers[nlri.Prefix]
		o := t.without(before, p.PeerAddress, p.RemoteID)
		t.count[p.PeerAddress] += len(o.via) - len(before.via)
		if !p.Withdrawal {
			t.count[p.PeerAddress]++
			o = t.with(o, route.Via{NextHop: nextHop(p), Peer: p.PeerAddress}, p.RemoteID)
		}
		if len(o.via) == 0 {
			delete(t.offers, nlri.Prefix)
		} else {
			t.offers[nlri.Prefix] = o
		}
		t.dirty[nlri.Prefix] = struct{}{}
		switch c := t.count[p.PeerAddress]; {
		case c == 0:
			delete(t.count, p.PeerAddress)
		case most > 0 && c > most:
			tooMuch = p.PeerAddress
		}
	}
	if len(t.dirty) > n {
		t.signal()
	}
	return tooMuch
}

// without is o less the way that one peer named under one identifier.
func (t *table) without(o offer, peer netip.Addr, id uint32) offer {
	var out offer
	for i, v := range o.via {
		if v.Peer != peer || o.id(i) != id {
			out = t.with(out, v, o.id(i))
		}
	}
	return out
}

func (t *table) with(o offer, v route.Via, id uint32) offer {
	if len(o.via) == 0 && id == 0 {
		one, ok := t.single[v]
		if !ok {
			one = offer{via: []route.Via{v}}
			if len(t.single) >= 4096 { // a peer that invents next hops gets no memory for it
				clear(t.single)
			}
			t.single[v] = one
		}
		return one
	}
	out := offer{via: append(slices.Clone(o.via), v)}
	if o.ids != nil || id != 0 {
		for i := range o.via {
			out.ids = append(out.ids, o.id(i))
		}
		out.ids = append(out.ids, id)
	}
	return out
}

func (t *table) signal() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func nextHop(p *apiutil.Path) netip.Addr {
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			return a.Value
		case *bgp.PathAttributeMpReachNLRI:
			return a.Nexthop
		}
	}
	return netip.Addr{}
}

// Changed tells that Take has something to give. One token stands for any number of changes.
func (s *Speaker) Changed() <-chan struct{} { return s.learned.changed }

// Take returns every prefix that changed since the last call; no way means that the prefix is gone.
func (s *Speaker) Take() []route.Learned {
	t := &s.learned
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]route.Learned, 0, len(t.dirty))
	for prefix := range t.dirty {
		out = append(out, route.Learned{Prefix: prefix, Via: t.offers[prefix].via})
	}
	clear(t.dirty)
	return out
}

// Learned returns all prefixes.
func (s *Speaker) Learned() []route.Learned {
	t := &s.learned
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]route.Learned, 0, len(t.offers))
	for prefix, o := range t.offers {
		out = append(out, route.Learned{Prefix: prefix, Via: o.via})
	}
	return out
}

func (s *Speaker) watch(ctx context.Context) error {
	err := s.srv.WatchEvent(context.WithoutCancel(ctx), server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) {
			if peer := s.learned.apply(paths, int(s.cfg.MaxPrefixes)); peer.IsValid() {
				s.drop(peer, fmt.Sprintf("the peer sent more than %d prefixes; cut off for a minute", s.cfg.MaxPrefixes), true)
			}
		},
		OnPeerUpdate: s.peerEvent,
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			if p.Family == bgp.RF_IPv4_UC && p.PeerAddress.IsValid() {
				s.sessions.update(p.PeerAddress, func(x *entry) { x.Synced = true })
				s.learned.signal()
			}
		},
	}, server.WatchBestPath(true), server.WatchPeer(), server.WatchEor(true))
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

// Announce makes set the prefixes of our own that every peer is told, with ourselves as next hop. It is idempotent;
// what is not in set any more is withdrawn.
func (s *Speaker) Announce(set []route.Announcement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[netip.Prefix]bool{}
	for _, a := range set {
		want[a.Prefix] = true
		if leaving, told := s.announced[a.Prefix]; told && leaving == a.Leaving {
			continue
		}
		p, err := ownPath(a)
		if err != nil {
			return err
		}
		if _, err := s.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{p}}); err != nil {
			return fmt.Errorf("announce %s: %w", a.Prefix, err)
		}
		s.announced[a.Prefix] = a.Leaving
	}
	for prefix := range s.announced {
		if want[prefix] {
			continue
		}
		p, err := ownPath(route.Announcement{Prefix: prefix})
		if err != nil {
			return err
		}
		if err := s.srv.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{p}}); err != nil {
			return fmt.Errorf("withdraw %s: %w", prefix, err)
		}
		delete(s.announced, prefix)
	}
	s.begin()
	return nil
}

// gracefulShutdown is the well-known community GRACEFUL_SHUTDOWN (RFC 8326 section 5).
const gracefulShutdown = 0xffff0000

func ownPath(a route.Announcement) (*apiutil.Path, error) {
	if !a.Prefix.Addr().Is4() {
		return nil, fmt.Errorf("announce %s: IPv6 is not spoken yet", a.Prefix)
	}
	nlri, err := bgp.NewIPAddrPrefix(a.Prefix)
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", a.Prefix, err)
	}
	self, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified()) // gobgp puts in the session's own address
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", a.Prefix, err)
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), self}
	if a.Leaving {
		attrs = append(attrs, bgp.NewPathAttributeCommunities([]uint32{gracefulShutdown}))
	}
	return &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: nlri, Age: time.Now().Unix(), Attrs: attrs}, nil
}

// exportPolicy lets nothing out but our own prefixes and, for a transit router, learned ones inside Transit.
func (s *Speaker) exportPolicy(ctx context.Context) error {
	accept := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	statements := []*api.Statement{{
		Name: "own", Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, Actions: accept,
	}}
	if len(s.cfg.Transit) > 0 {
		set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: "transit"}
		for _, a := range s.cfg.Transit {
			set.Prefixes = append(set.Prefixes, &api.Prefix{IpPrefix: a.Prefix.String(), MaskLengthMin: uint32(a.Min), MaskLengthMax: uint32(a.Max)})
		}
		if err := s.srv.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return fmt.Errorf("export policy: %w", err)
		}
		statements = append(statements, &api.Statement{
			Name: "transit", Actions: accept,
			Conditions: &api.Conditions{PrefixSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: "transit"}},
		})
	}
	policy := &api.Policy{Name: "export", Statements: statements}
	if err := s.srv.AddPolicy(ctx, &api.AddPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("export policy: %w", err)
	}
	err := s.srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
		Policies: []*api.Policy{{Name: "export"}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
	}})
	if err != nil {
		return fmt.Errorf("export policy: %w", err)
	}
	return nil
}
