// SPDX-License-Identifier: Apache-2.0

// Package say puts what we want of gobgp into its words: peers and policies. It is pure, and talks to nobody.
package say

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/l3edge/l3edge/pkg/core/peer"
)

// DynamicGroup names the peer group of all listen ranges.
const DynamicGroup = "dynamic"

var (
	ipv4Unicast = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	ipv6Unicast = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
)

// Port is BGP's (RFC 4271 section 8).
const Port = 179

// MaxTTL is what all our packets have, so that peers can use GTSM (RFC 5082).
const MaxTTL = 255

// Self is what all peers are told alike.
type Self struct {
	ASN          uint32
	RouterID     netip.Addr
	LocalAddress netip.Addr // zero: any
	IPv4, IPv6   bool       // the families of prefixes that are spoken about
	Hold         time.Duration
	RestartTime  time.Duration
	Restarting   bool // the kernel still holds the routes of the process before us
}

// From is the address to speak to a peer from; zero: any.
func (s Self) From(set peer.Settings, to netip.Addr) netip.Addr {
	for _, a := range []netip.Addr{set.LocalAddress, s.LocalAddress} {
		if a.IsValid() && a.Is4() == to.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// Peer is a peer at an address.
func (s Self) Peer(p peer.Peer, addr netip.Addr) *api.Peer {
	c := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: addr.String(), PeerAsn: p.ASN, LocalAsn: s.ASN, AuthPassword: p.Password},
		Transport:       s.transport(p.Settings, addr),
		Timers:          s.timers(p.Settings),
		GracefulRestart: s.graceful(p.Settings),
		AfiSafis:        s.families(p.Settings),
		RouteReflector:  s.reflector(p.Settings),
		Bfd:             bfd(p.BFD),
	}
	if p.GTSM {
		c.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: MaxTTL}
	} else { // the peer may want GTSM, or be further away
		c.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: MaxTTL}
	}
	return c
}

// Group is the peer group of whoever connects from a listen range.
func (s Self) Group(set peer.Settings) *api.PeerGroup {
	g := &api.PeerGroup{
		Conf:            &api.PeerGroupConf{PeerGroupName: DynamicGroup, PeerAsn: set.ASN, LocalAsn: s.ASN, AuthPassword: set.Password},
		Transport:       s.transport(set, netip.Addr{}),
		Timers:          s.timers(set),
		GracefulRestart: s.graceful(set),
		AfiSafis:        s.families(set),
		RouteReflector:  s.reflector(set),
		Bfd:             bfd(set.BFD),
	}
	if set.GTSM {
		g.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: MaxTTL}
	}
	return g
}

// transport leaves dialling to us.
func (s Self) transport(set peer.Settings, at netip.Addr) *api.Transport {
	t := &api.Transport{PassiveMode: true}
	if at.IsValid() {
		t.RemotePort = uint32(cmp.Or(set.Port, Port))
		if from := s.From(set, at); from.IsValid() {
			t.LocalAddress = from.String()
		}
	}
	return t
}

func (s Self) timers(set peer.Settings) *api.Timers {
	hold := uint64(cmp.Or(set.Hold, s.Hold) / time.Second)
	return &api.Timers{Config: &api.TimersConfig{
		HoldTime: hold, KeepaliveInterval: max(hold/3, 1), ConnectRetry: 1, IdleHoldTimeAfterReset: 1,
	}}
}

func (s Self) reflector(set peer.Settings) *api.RouteReflector {
	if !set.Reflect {
		return nil
	}
	return &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: s.RouterID.String()}
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
func (s Self) graceful(set peer.Settings) *api.GracefulRestart {
	return &api.GracefulRestart{
		Enabled:          true,
		RestartTime:      uint32(s.RestartTime / time.Second),
		DeferralTime:     uint32(deferral / time.Second),
		LocalRestarting:  s.Restarting,
		LonglivedEnabled: set.LongLived > 0,
	}
}

func (s Self) families(set peer.Settings) []*api.AfiSafi {
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
	add(s.IPv4, ipv4Unicast)
	add(s.IPv6, ipv6Unicast)
	return out
}
