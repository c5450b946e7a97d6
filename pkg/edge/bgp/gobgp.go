// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// The files gobgp.go and policy.go put what we want into gobgp's words.

// dynamicGroup names the peer group of all listen ranges.
const dynamicGroup = "dynamic"

var (
	ipv4Unicast = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	ipv6Unicast = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
)

func (s *Speaker) peerConfig(p Peer, addr netip.Addr) *api.Peer {
	c := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: addr.String(), PeerAsn: p.ASN, LocalAsn: s.cfg.ASN, AuthPassword: p.Password},
		Transport:       s.transport(p.Settings, addr),
		Timers:          s.timers(p.Settings),
		GracefulRestart: s.graceful(p.Settings),
		AfiSafis:        s.families(p.Settings),
		RouteReflector:  s.reflector(p.Settings),
		Bfd:             bfd(p.BFD),
	}
	if p.GTSM {
		c.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: maxTTL}
	} else { // the peer may want GTSM, or be further away
		c.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: maxTTL}
	}
	return c
}

func (s *Speaker) listenRanges(ctx context.Context) error {
	if len(s.cfg.Listen) == 0 {
		return nil
	}
	set := s.cfg.ListenAs
	g := &api.PeerGroup{
		Conf:            &api.PeerGroupConf{PeerGroupName: dynamicGroup, PeerAsn: set.ASN, LocalAsn: s.cfg.ASN, AuthPassword: set.Password},
		Transport:       s.transport(set, netip.Addr{}),
		Timers:          s.timers(set),
		GracefulRestart: s.graceful(set),
		AfiSafis:        s.families(set),
		RouteReflector:  s.reflector(set),
		Bfd:             bfd(set.BFD),
	}
	if set.GTSM {
		g.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: maxTTL}
	}
	if err := s.srv.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: g}); err != nil {
		return fmt.Errorf("add peer group: %w", err)
	}
	for _, r := range s.cfg.Listen {
		err := s.srv.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{
			DynamicNeighbor: &api.DynamicNeighbor{Prefix: r.String(), PeerGroup: dynamicGroup},
		})
		if err != nil {
			return fmt.Errorf("add listen range %s: %w", r, err)
		}
	}
	return nil
}

// transport leaves dialling to us.
func (s *Speaker) transport(set Settings, peer netip.Addr) *api.Transport {
	t := &api.Transport{PassiveMode: true}
	if peer.IsValid() {
		t.RemotePort = uint32(or(set.Port, Port))
		if from := s.from(set, peer); from.IsValid() {
			t.LocalAddress = from.String()
		}
	}
	return t
}

func (s *Speaker) timers(set Settings) *api.Timers {
	hold := uint64(or(set.Hold, s.cfg.Hold) / time.Second)
	return &api.Timers{Config: &api.TimersConfig{
		HoldTime: hold, KeepaliveInterval: max(hold/3, 1), ConnectRetry: 1, IdleHoldTimeAfterReset: 1,
	}}
}

func (s *Speaker) reflector(set Settings) *api.RouteReflector {
	if !set.Reflect {
		return nil
	}
	return &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: s.cfg.RouterID.String()}
}

func bfd(interval time.Duration) *api.BfdPeerConfig {
	if interval == 0 {
		return nil
	}
	us := uint32(interval / time.Microsecond)
	return &api.BfdPeerConfig{Enabled: true, DesiredMinimumTxInterval: us, RequiredMinimumReceive: us, DetectionMultiplier: 3}
}

// deferral bounds how long a restarted speaker waits for every peer's End-of-RIB before it announces (RFC 4724
// section 4.1). A peer that never sends one must not keep the node off the net.
const deferral = 3 * time.Second

// graceful is RFC 4724 as it stands: a NOTIFICATION ends the session and what was learned by it. With RFC 8538's N bit, a
// reset by BFD would keep the routes of a node that cannot be reached.
func (s *Speaker) graceful(set Settings) *api.GracefulRestart {
	return &api.GracefulRestart{
		Enabled:          true,
		RestartTime:      uint32(s.cfg.RestartTime / time.Second),
		DeferralTime:     uint32(deferral / time.Second),
		LocalRestarting:  s.cfg.Restarting,
		LonglivedEnabled: set.LongLived > 0,
	}
}

func (s *Speaker) families(set Settings) []*api.AfiSafi {
	var out []*api.AfiSafi
	add := func(on bool, f *api.Family) {
		if !on {
			return
		}
		x := &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: f, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
		}
		if set.LongLived > 0 {
			x.LongLivedGracefulRestart = &api.LongLivedGracefulRestart{
				Config: &api.LongLivedGracefulRestartConfig{Enabled: true, RestartTime: uint32(set.LongLived / time.Second)},
			}
		}
		if set.AddPaths > 0 {
			x.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{Receive: true, SendMax: uint32(set.AddPaths)}}
		}
		out = append(out, x)
	}
	add(s.cfg.IPv4, ipv4Unicast)
	add(s.cfg.IPv6, ipv6Unicast)
	return out
}
