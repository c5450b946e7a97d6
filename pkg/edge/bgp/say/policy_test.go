// SPDX-License-Identifier: Apache-2.0

package say

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"

	"github.com/l3edge/l3edge/pkg/core/peer"
	"github.com/l3edge/l3edge/pkg/core/route"
)

// lines says in short what a policy does, a line for each statement.
func lines(r *api.SetPoliciesRequest) string {
	var out []string
	for _, p := range r.Policies {
		for _, s := range p.Statements {
			when := []string{}
			for _, m := range []*api.MatchSet{s.Conditions.NeighborSet, s.Conditions.PrefixSet, s.Conditions.CommunitySet} {
				if m != nil {
					i := slices.IndexFunc(r.DefinedSets, func(d *api.DefinedSet) bool { return d.Name == m.Name })
					when = append(when, fmt.Sprintf("%s%v", strings.Repeat("not ", int(m.Type)/2), sets(r.DefinedSets[i])))
				}
			}
			if s.Conditions.RouteType == api.Conditions_ROUTE_TYPE_LOCAL {
				when = append(when, "own")
			}
			then := []string{}
			a := s.Actions
			if a.Med != nil {
				then = append(then, fmt.Sprint("med ", a.Med.Value))
			}
			if a.LocalPref != nil {
				then = append(then, fmt.Sprint("local-pref ", a.LocalPref.Value))
			}
			if a.AsPrepend != nil {
				then = append(then, fmt.Sprint("prepend ", a.AsPrepend.Asn, " x", a.AsPrepend.Repeat))
			}
			for _, c := range []*api.CommunityAction{a.Community, a.LargeCommunity} {
				if c != nil {
					then = append(then, fmt.Sprint("communities ", c.Communities))
				}
			}
			if a.RouteAction != api.RouteAction_ROUTE_ACTION_UNSPECIFIED {
				then = append(then, strings.ToLower(strings.TrimPrefix(a.RouteAction.String(), "ROUTE_ACTION_")))
			}
			out = append(out, p.Name+": "+strings.Join(when, ", ")+" -> "+strings.Join(then, ", "))
		}
	}
	return strings.Join(out, "\n")
}

func sets(d *api.DefinedSet) []string {
	all := slices.Clone(d.List)
	for _, p := range d.Prefixes {
		all = append(all, fmt.Sprintf("%s %d-%d", p.IpPrefix, p.MaskLengthMin, p.MaskLengthMax))
	}
	return all
}

func TestRender(t *testing.T) {
	med := uint32(7)
	var marks []peer.Community
	for _, s := range []string{"64512:1", "64512:1:2"} {
		c, err := peer.ParseCommunity(s)
		if err != nil {
			t.Fatal(err)
		}
		marks = append(marks, c)
	}
	p := Policy{
		ASN:      4200000001,
		Transit:  []route.Accept{{Prefix: netip.MustParsePrefix("10.10.0.0/16"), Min: 16, Max: 28}},
		Withheld: []route.Accept{{Prefix: netip.MustParsePrefix("10.10.5.0/24"), Min: 24, Max: 32}},
		Listen:   []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
		ListenAs: peer.Settings{Prefer: 50},
		Peers: map[netip.Addr]peer.Settings{
			netip.MustParseAddr("10.20.30.1"):   {Prefer: 200, Out: peer.Out{MED: &med, Prepend: 2, Communities: marks}},
			netip.MustParseAddr("fe80::1%eth0"): {},
		},
	}
	want := `export: not [::/0] -> reject
export: [10.20.30.1/32] -> med 7, prepend 4200000001 x2, communities [64512:1], communities [64512:1:2]
export: own -> accept
export: [10.10.5.0/24 24-32] -> reject
export: [10.10.0.0/16 16-28] -> accept
import: [10.20.30.1/32] -> local-pref 200
import: [10.20.0.0/16] -> local-pref 50
import: [^65535:0$] -> local-pref 1`
	if d := cmp.Diff(want, lines(p.Render())); d != "" {
		t.Error(d)
	}
}

func TestPeer(t *testing.T) {
	s := Self{ASN: 64512, LocalAddress: netip.MustParseAddr("10.20.30.62"), IPv4: true, IPv6: true, Hold: 9 * time.Second, RestartTime: 120 * time.Second}
	p := s.Peer(peer.Peer{Name: "mls", Settings: peer.Settings{GTSM: true, BFD: 50 * time.Millisecond, Hold: 30 * time.Second}}, netip.MustParseAddr("10.20.30.1"))
	got := fmt.Sprintln(len(p.AfiSafis), p.Transport.LocalAddress, p.Transport.PassiveMode, p.Timers.Config.HoldTime, p.Timers.Config.KeepaliveInterval,
		p.TtlSecurity.TtlMin, p.EbgpMultihop, p.Bfd.DesiredMinimumTxInterval, p.GracefulRestart.RestartTime)
	if want := "2 10.20.30.62 true 30 10 255 <nil> 50000 120\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if p := s.Peer(peer.Peer{Name: "mls"}, netip.MustParseAddr("2001:db8::1")); p.Transport.LocalAddress != "" || p.TtlSecurity != nil || p.EbgpMultihop.MultihopTtl != MaxTTL {
		t.Errorf("a peer of the other family, without GTSM: %v", p)
	}
}
