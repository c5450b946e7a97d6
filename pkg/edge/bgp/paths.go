// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"maps"
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

// pathKey tells the paths of one prefix apart.
type pathKey struct {
	peer netip.Addr
	id   uint32
}

// table holds the best paths of every prefix. gobgp tells changes only, through a queue without bound; we empty that
// queue at once into this table, whose size is bounded by the number of prefixes, and a slow reader finds prefixes that
// changed, not a history.
type table struct {
	mu      sync.Mutex
	paths   map[netip.Prefix]map[pathKey]netip.Addr // the next hop
	dirty   map[netip.Prefix]bool
	changed chan struct{}
}

func (t *table) apply(paths []*apiutil.Path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.paths == nil {
		t.paths, t.dirty = map[netip.Prefix]map[pathKey]netip.Addr{}, map[netip.Prefix]bool{}
	}
	n := len(t.dirty)
	for _, p := range paths {
		if p == nil || p.Family != bgp.RF_IPv4_UC || !p.PeerAddress.IsValid() { // without a peer it is our own
			continue
		}
		nlri, ok := p.Nlri.(*bgp.IPAddrPrefix)
		if !ok {
			continue
		}
		prefix, key := nlri.Prefix, pathKey{peer: p.PeerAddress, id: p.RemoteID}
		of := t.paths[prefix]
		switch {
		case p.Withdrawal:
			delete(of, key)
			if len(of) == 0 {
				delete(t.paths, prefix)
			}
		case of == nil:
			t.paths[prefix] = map[pathKey]netip.Addr{key: nextHop(p)}
		default:
			of[key] = nextHop(p)
		}
		t.dirty[prefix] = true
	}
	if len(t.dirty) > n {
		t.signal()
	}
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

func (t *table) of(prefix netip.Prefix) []route.Path {
	var out []route.Path
	for k, nh := range t.paths[prefix] {
		out = append(out, route.Path{Prefix: prefix, NextHop: nh, Peer: k.peer})
	}
	return out
}

// Changed tells that Take has something to give. One token stands for any number of changes.
func (s *Speaker) Changed() <-chan struct{} { return s.learned.changed }

// Take returns the paths of every prefix that changed since the last call; no paths means that the prefix is gone.
func (s *Speaker) Take() map[netip.Prefix][]route.Path {
	t := &s.learned
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[netip.Prefix][]route.Path, len(t.dirty))
	for prefix := range t.dirty {
		out[prefix] = t.of(prefix)
	}
	t.dirty = map[netip.Prefix]bool{}
	return out
}

// Learned returns all best paths.
func (s *Speaker) Learned() []route.Path {
	t := &s.learned
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]route.Path, 0, len(t.paths))
	for prefix := range t.paths {
		out = append(out, t.of(prefix)...)
	}
	return out
}

func (s *Speaker) watch(ctx context.Context) error {
	err := s.srv.WatchEvent(context.WithoutCancel(ctx), server.WatchEventMessageCallbacks{
		OnBestPath:   func(paths []*apiutil.Path, _ time.Time) { s.learned.apply(paths) },
		OnPeerUpdate: s.peerEvent,
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			if p.Family == bgp.RF_IPv4_UC && p.PeerAddress.IsValid() {
				s.sessions.update(p.PeerAddress, func(x *Session) { x.Synced = true })
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
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(want), netip.Prefix.Compare) {
		if s.announced[prefix] {
			continue
		}
		p, err := ownPath(prefix)
		if err != nil {
			return err
		}
		if _, err := s.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{p}}); err != nil {
			return fmt.Errorf("announce %s: %w", prefix, err)
		}
		s.announced[prefix] = true
	}
	for prefix := range s.announced {
		if want[prefix] {
			continue
		}
		p, err := ownPath(prefix)
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

func ownPath(prefix netip.Prefix) (*apiutil.Path, error) {
	if !prefix.Addr().Is4() {
		return nil, fmt.Errorf("announce %s: IPv6 is not spoken yet", prefix)
	}
	nlri, err := bgp.NewIPAddrPrefix(prefix)
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", prefix, err)
	}
	self, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified()) // gobgp puts in the session's own address
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", prefix, err)
	}
	return &apiutil.Path{
		Family: bgp.RF_IPv4_UC, Nlri: nlri, Age: time.Now().Unix(),
		Attrs: []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), self},
	}, nil
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
