// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp/say"
)

// assignPolicies puts the first policies in force.
func (s *Speaker) assignPolicies(ctx context.Context) error {
	if err := s.srv.SetPolicies(ctx, s.policy.Render()); err != nil {
		return fmt.Errorf("set policies: %w", err)
	}
	for _, a := range []*api.PolicyAssignment{
		{Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, Policies: []*api.Policy{{Name: say.Export}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT},
		{Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT, Policies: []*api.Policy{{Name: say.Import}}, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
	} {
		a.Name = "global"
		if err := s.srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign policies: %w", err)
		}
	}
	return nil
}

// changePolicy puts policies in force that rest on other input, and reports whether they differ from those before.
func (s *Speaker) changePolicy(ctx context.Context, f func(*say.Policy)) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.policy.Render()
	f(&s.policy)
	now := s.policy.Render()
	if proto.Equal(before, now) {
		return false, nil
	}
	if err := s.srv.SetPolicies(ctx, now); err != nil {
		return false, fmt.Errorf("set policies: %w", err)
	}
	return true, nil
}

// settings are those of the peer at a.
func (s *Speaker) settings(a netip.Addr) Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policy.Settings(a)
}

// NextHops says which IPv6 address of ours peers on a link can use, by the link's IPv4 prefix. It matters where IPv6
// prefixes go over a session between IPv4 addresses.
func (s *Speaker) NextHops(byLink map[netip.Prefix]netip.Addr) error {
	return s.tellAnew(func(in *say.Policy) { in.NextHops = maps.Clone(byLink) })
}

// Withhold says which learned prefixes are not passed on, though they are inside Config.Transit.
func (s *Speaker) Withhold(these []route.Accept) error {
	return s.tellAnew(func(in *say.Policy) { in.Withheld = these })
}

// tellAnew changes the policies, and tells the peers what is to be told otherwise now.
func (s *Speaker) tellAnew(f func(*say.Policy)) error {
	select {
	case <-s.started:
	default: // nothing is announced yet
		s.mu.Lock()
		defer s.mu.Unlock()
		f(&s.policy)
		return nil
	}
	changed, err := s.changePolicy(context.Background(), f)
	if changed && err == nil {
		_ = s.srv.ResetPeer(context.Background(), &api.ResetPeerRequest{Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT}) // there may be no peer
	}
	return err
}
