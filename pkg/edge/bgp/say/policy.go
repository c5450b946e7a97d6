// SPDX-License-Identifier: Apache-2.0

package say

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/l3edge/l3edge/pkg/core/peer"
	"github.com/l3edge/l3edge/pkg/core/route"
)

// Policy is all that our policies rest on.
type Policy struct {
	ASN      uint32
	Transit  []route.Accept
	Withheld []route.Accept // and of these none
	Listen   []netip.Prefix
	ListenAs peer.Settings
	Peers    map[netip.Addr]peer.Settings
	NextHops map[netip.Prefix]netip.Addr
}

// Settings are those of the peer at a.
func (in Policy) Settings(a netip.Addr) peer.Settings {
	if s, ok := in.Peers[a]; ok {
		return s
	}
	return in.ListenAs
}

const (
	// Export names the policy for what we tell.
	Export = "export"
	// Import names the policy for what we are told.
	Import = "import"
	// GracefulShutdown is the well-known community GRACEFUL_SHUTDOWN (RFC 8326 section 5).
	GracefulShutdown = 0xffff0000
)

// Render writes the policies as gobgp reads them.
//
// Outwards nothing but our own prefixes and, for a transit router, learned ones inside Transit that are not Withheld. An IPv6 prefix needs an IPv6
// next hop, also over a session between IPv4 addresses; where the link to the peer has none, it is not announced.
// Inwards everything, as route.Policy decides later what may be used; but what is about to leave (GRACEFUL_SHUTDOWN) loses
// against anything else.
func (in Policy) Render() *api.SetPoliciesRequest {
	w := &policyWriter{}
	accept := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	w.nextHops(in.NextHops)
	each := func(f func(match *api.MatchSet, s peer.Settings)) {
		for i, a := range slices.SortedFunc(maps.Keys(in.Peers), netip.Addr.Compare) {
			bare := a.WithZone("")
			f(w.neighbors(fmt.Sprintf("peer-%d", i), netip.PrefixFrom(bare, bare.BitLen())), in.Peers[a])
		}
		if len(in.Listen) > 0 {
			f(w.neighbors("listen", in.Listen...), in.ListenAs)
		}
	}
	each(func(match *api.MatchSet, s peer.Settings) { w.out(match, s.Out, in.ASN) })
	w.export(&api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, accept)
	if len(in.Transit) > 0 {
		for i, a := range in.Withheld {
			w.export(&api.Conditions{PrefixSet: w.prefixes(fmt.Sprintf("withheld-%d", i), a)}, &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
		}
	}
	for i, a := range in.Transit {
		w.export(&api.Conditions{PrefixSet: w.prefixes(fmt.Sprintf("transit-%d", i), a)}, accept)
	}
	each(func(match *api.MatchSet, s peer.Settings) {
		if s.Prefer != 0 {
			w.imports(&api.Conditions{NeighborSet: match}, &api.Actions{LocalPref: &api.LocalPrefAction{Value: s.Prefer}})
		}
	})
	w.sets = append(w.sets, &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_COMMUNITY, Name: "leaving", List: []string{"^65535:0$"}})
	w.imports(&api.Conditions{CommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: "leaving"}},
		&api.Actions{LocalPref: &api.LocalPrefAction{Value: 1}}) // gobgp takes 0, which RFC 8326 asks for, for none
	return &api.SetPoliciesRequest{DefinedSets: w.sets, Policies: []*api.Policy{
		{Name: Export, Statements: w.exported}, {Name: Import, Statements: w.imported},
	}}
}

// policyWriter collects statements and the sets that they name.
type policyWriter struct {
	sets               []*api.DefinedSet
	exported, imported []*api.Statement
}

func (w *policyWriter) export(c *api.Conditions, a *api.Actions) {
	w.exported = append(w.exported, &api.Statement{Name: fmt.Sprintf("export-%d", len(w.exported)), Conditions: c, Actions: a})
}

func (w *policyWriter) imports(c *api.Conditions, a *api.Actions) {
	w.imported = append(w.imported, &api.Statement{Name: fmt.Sprintf("import-%d", len(w.imported)), Conditions: c, Actions: a})
}

// neighbors is a condition on the peer's address; the set is made when it is new.
func (w *policyWriter) neighbors(name string, ps ...netip.Prefix) *api.MatchSet {
	match := &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}
	if slices.ContainsFunc(w.sets, func(s *api.DefinedSet) bool { return s.Name == name }) {
		return match
	}
	set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name}
	for _, p := range ps {
		set.List = append(set.List, p.String())
	}
	w.sets = append(w.sets, set)
	return match
}

// prefixes is a condition on the prefix.
func (w *policyWriter) prefixes(name string, a route.Accept) *api.MatchSet {
	w.sets = append(w.sets, &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name, Prefixes: []*api.Prefix{
		{IpPrefix: a.Prefix.String(), MaskLengthMin: uint32(a.Min), MaskLengthMax: uint32(a.Max)},
	}})
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}
}

// nextHops puts our IPv6 address on the peer's link into what goes over a session between IPv4 addresses.
func (w *policyWriter) nextHops(byLink map[netip.Prefix]netip.Addr) {
	known := []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	for i, link := range slices.SortedFunc(maps.Keys(byLink), netip.Prefix.Compare) {
		known = append(known, link)
		match := w.neighbors(fmt.Sprintf("link-%d", i), link)
		for _, kind := range []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_LOCAL, api.Conditions_ROUTE_TYPE_EXTERNAL} {
			w.export(&api.Conditions{NeighborSet: match, RouteType: kind, AfiSafiIn: []*api.Family{ipv6Unicast}},
				&api.Actions{Nexthop: &api.NexthopAction{Address: byLink[link].String()}})
		}
	}
	elsewhere := w.neighbors("reached", known...)
	elsewhere = &api.MatchSet{Type: api.MatchSet_TYPE_INVERT, Name: elsewhere.Name}
	w.export(&api.Conditions{NeighborSet: elsewhere, AfiSafiIn: []*api.Family{ipv6Unicast}},
		&api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
}

// out sets what announcements carry towards the matching peers.
func (w *policyWriter) out(match *api.MatchSet, o peer.Out, asn uint32) {
	a := &api.Actions{}
	if o.MED != nil {
		a.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(*o.MED)}
	}
	if o.LocalPref != 0 {
		a.LocalPref = &api.LocalPrefAction{Value: o.LocalPref}
	}
	if o.Prepend > 0 {
		a.AsPrepend = &api.AsPrependAction{Asn: asn, Repeat: uint32(o.Prepend)}
	}
	for _, c := range o.Communities {
		to := &a.Community
		if c.Large() {
			to = &a.LargeCommunity
		}
		if *to == nil {
			*to = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD}
		}
		(*to).Communities = append((*to).Communities, c.String())
	}
	if !proto.Equal(a, &api.Actions{}) {
		w.export(&api.Conditions{NeighborSet: match}, a)
	}
}
