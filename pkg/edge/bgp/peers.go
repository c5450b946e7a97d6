// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

const (
	retryFirst = 250 * time.Millisecond
	retryMost  = time.Second
	// dynamicGroup names the peer group of all listen ranges.
	dynamicGroup = "dynamic"
)

var ipv4Unicast = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}

// kept is a peer that a goroutine looks after.
type kept struct {
	peer Peer
	stop context.CancelFunc
	done chan struct{}
}

// followPeers looks after every peer of the set, and of the sets that replace it, until ctx ends or one fails.
func (s *Speaker) followPeers(ctx context.Context, peers []Peer) error {
	failed := make(chan error, 1)
	running := map[string]kept{}
	defer func() {
		for _, k := range running {
			k.stop()
			<-k.done
		}
	}()
	for {
		if err := s.dropPeers(ctx, running, peers); err != nil {
			return err
		}
		for _, p := range peers {
			if _, ok := running[p.Name]; ok {
				continue
			}
			pctx, stop := context.WithCancel(ctx)
			k := kept{peer: p, stop: stop, done: make(chan struct{})}
			running[p.Name] = k
			s.sessions.expect(p.Name)
			go func() {
				defer close(k.done)
				if err := s.keepPeer(pctx, p); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}()
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case peers = <-s.peers:
		}
	}
}

// dropPeers ends the sessions with peers that are not in the set as they were.
func (s *Speaker) dropPeers(ctx context.Context, running map[string]kept, peers []Peer) error {
	for name, k := range running {
		if slices.Contains(peers, k.peer) {
			continue
		}
		k.stop()
		<-k.done
		delete(running, name)
		if addr := s.sessions.dismiss(name); addr.IsValid() {
			if err := s.forgetPeer(ctx, k.peer, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// keepPeer keeps a session with one peer for as long as ctx lives: resolve, configure, dial; and again when the name
// has come to mean another address.
func (s *Speaker) keepPeer(ctx context.Context, p Peer) error {
	var have netip.Addr
	wait := retryFirst // between attempts; it grows until a session stands
	for {
		addr, err := resolve(ctx, p.Name)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !have.IsValid():
			s.report(p.Name, Unresolved, err.Error())
			wait = pause(ctx, wait)
			continue
		case err == nil && addr != have:
			if have.IsValid() {
				if err := s.forgetPeer(ctx, p, have); err != nil {
					return err
				}
			}
			if err := s.addPeer(ctx, p, addr); err != nil {
				return err
			}
			have = addr
		}
		wait = s.connect(ctx, p, have, wait)
		if after, yes := s.sessions.renewed(have); yes {
			if err := s.forgetPeer(ctx, p, have); err != nil {
				return err
			}
			pause(ctx, after)
			if err := s.addPeer(ctx, p, have); err != nil {
				return err
			}
			wait = pause(ctx, wait) // a peer that flaps is not met more often than this
		}
	}
}

// forgetPeer has gobgp drop the peer and all that was learned from it.
func (s *Speaker) forgetPeer(ctx context.Context, p Peer, addr netip.Addr) error {
	err := s.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: addr.String()})
	if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "can't delete a peer configuration") { // never added
		return fmt.Errorf("forget peer %s at %s: %w", p.Name, addr, err)
	}
	return nil
}

func (s *Speaker) addPeer(ctx context.Context, p Peer, addr netip.Addr) error {
	s.sessions.bind(p.Name, addr)
	if err := s.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: s.peerConfig(p, addr)}); err != nil && ctx.Err() == nil {
		return fmt.Errorf("add peer %s at %s: %w", p.Name, addr, err)
	}
	return nil
}

// resolve finds the peer's IPv4 address; a name may be in /etc/hosts or in DNS.
func resolve(ctx context.Context, name string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return a, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0].Unmap(), nil
}

// Resolve finds the address of a peer as the speaker will.
func Resolve(ctx context.Context, name string) (netip.Addr, error) { return resolve(ctx, name) }

func (s *Speaker) peerConfig(p Peer, addr netip.Addr) *api.Peer {
	c := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: addr.String(), PeerAsn: p.ASN, LocalAsn: s.cfg.ASN, AuthPassword: p.Password},
		Transport:       s.transport(uint32(or(p.Port, Port))),
		Timers:          s.timers(),
		GracefulRestart: s.graceful(),
		AfiSafis:        families(),
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
	err := s.srv.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: &api.PeerGroup{
		Conf:            &api.PeerGroupConf{PeerGroupName: dynamicGroup, LocalAsn: s.cfg.ASN, AuthPassword: s.cfg.ListenPassword},
		Transport:       s.transport(0),
		Timers:          s.timers(),
		GracefulRestart: s.graceful(),
		AfiSafis:        families(),
		Bfd:             bfd(s.cfg.ListenBFD),
	}})
	if err != nil {
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

// transport leaves dialling to us, unless gobgp cannot be handed a connection.
func (s *Speaker) transport(remotePort uint32) *api.Transport {
	t := &api.Transport{PassiveMode: true, RemotePort: remotePort}
	if s.cfg.LocalAddress.IsValid() {
		t.LocalAddress = s.cfg.LocalAddress.String()
	}
	return t
}

func (s *Speaker) timers() *api.Timers {
	hold := uint64(s.cfg.Hold / time.Second)
	return &api.Timers{Config: &api.TimersConfig{
		HoldTime: hold, KeepaliveInterval: max(hold/3, 1), ConnectRetry: 1, IdleHoldTimeAfterReset: 1,
	}}
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
func (s *Speaker) graceful() *api.GracefulRestart {
	return &api.GracefulRestart{
		Enabled:         true,
		RestartTime:     uint32(s.cfg.RestartTime / time.Second),
		DeferralTime:    uint32(deferral / time.Second),
		LocalRestarting: s.cfg.Restarting,
	}
}

func families() []*api.AfiSafi {
	return []*api.AfiSafi{{
		Config:            &api.AfiSafiConfig{Family: ipv4Unicast, Enabled: true},
		MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
	}}
}

// pause waits for d or the end of ctx and returns how long to wait the next time.
func pause(ctx context.Context, d time.Duration) time.Duration {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return min(2*d, retryMost)
}
