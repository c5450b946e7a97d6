// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/l3edge/l3edge/pkg/edge/bgp/dial"
	"github.com/l3edge/l3edge/pkg/edge/bgp/say"
)

const (
	retryFirst = 250 * time.Millisecond
	retryMost  = time.Second
)

// kept is a peer that a goroutine looks after.
type kept struct {
	peer *atomic.Pointer[Peer]
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
			k := kept{peer: new(atomic.Pointer[Peer]), stop: stop, done: make(chan struct{})}
			k.peer.Store(&p)
			running[p.Name] = k
			s.sessions.Expect(p.Name)
			go func() {
				defer close(k.done)
				if err := s.keepPeer(pctx, k.peer); err != nil {
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
		old := *k.peer.Load()
		why := "no longer a peer"
		if i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == name }); i >= 0 {
			if reflect.DeepEqual(peers[i], old) {
				continue
			}
			if reflect.DeepEqual(peers[i].Fixed(), old.Fixed()) {
				k.peer.Store(&peers[i])
				if err := s.resettle(ctx, old, peers[i]); err != nil {
					return err
				}
				continue
			}
			why = "settings changed"
		}
		k.stop()
		<-k.done
		delete(running, name)
		if err := s.leavePeer(ctx, old, s.sessions.Address(name), why); err != nil {
			return err
		}
		s.sessions.Dismiss(name)
	}
	return nil
}

// resettle puts another key, other attributes and preferences in force without disturbing the session (soft reset, RFC
// 2918).
func (s *Speaker) resettle(ctx context.Context, old, p Peer) error {
	addr := s.sessions.Address(p.Name)
	if !addr.IsValid() {
		return nil // its settings are taken up with its address
	}
	if p.Password != old.Password {
		if err := dial.Rekey(s.self.From(p.Settings, addr), addr, s.cfg.Port, p.Password); err != nil {
			s.log.Warn("session keeps its old key", "peer", p.Name, "problem", err)
		}
	}
	if _, err := s.changePolicy(ctx, func(in *say.Policy) { in.Peers[addr] = p.Settings }); err != nil {
		return err
	}
	if reflect.DeepEqual(p.Out, old.Out) && p.Prefer == old.Prefer {
		return nil
	}
	_ = s.srv.ResetPeer(ctx, &api.ResetPeerRequest{Address: addr.String(), Soft: true, Direction: api.ResetPeerRequest_DIRECTION_BOTH}) // no session: no need
	return nil
}

// keepPeer keeps a session with one peer for as long as ctx lives: resolve, configure, dial; and again when the name
// has come to mean another address.
func (s *Speaker) keepPeer(ctx context.Context, now *atomic.Pointer[Peer]) error {
	var have netip.Addr
	wait := retryFirst // between attempts; it grows until a session stands
	for {
		p := *now.Load()
		addr, err := s.resolve(ctx, p, have)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !have.IsValid():
			s.report(p.Name, Unresolved, err.Error())
			if p.Interface || isLink(p.Name) {
				wait = retryFirst // to ask was to wait
			}
			wait = pause(ctx, wait, most(p))
			continue
		case err == nil && addr != have:
			if err := s.leavePeer(ctx, p, have, "another of its addresses is used now"); err != nil {
				return err
			}
			have = addr
			if err := s.addPeer(ctx, *now.Load(), addr); err != nil {
				have = netip.Addr{}
				s.report(p.Name, Idle, err.Error())
				wait = pause(ctx, wait, most(p))
				continue
			}
		}
		wait = s.connect(ctx, p, have, wait)
		if s.sessions.MustRenew(have) {
			if err := s.forgetPeer(ctx, p, have, "begun anew"); err != nil {
				return err
			}
			after := s.sessions.Renewed(have)
			pause(ctx, after, after)
			if err := s.addPeer(ctx, *now.Load(), have); err != nil {
				have = netip.Addr{}
				s.report(p.Name, Idle, err.Error())
			}
			wait = pause(ctx, wait, most(p)) // a peer that flaps is not met more often than this
		}
	}
}

// leavePeer ends all that there is with a peer at an address; an invalid one is none.
func (s *Speaker) leavePeer(ctx context.Context, p Peer, addr netip.Addr, why string) error {
	if !addr.IsValid() {
		return nil
	}
	if err := s.forgetPeer(ctx, p, addr, why); err != nil {
		return err
	}
	s.sessions.Release(p.Name)
	_, err := s.changePolicy(ctx, func(in *say.Policy) { delete(in.Peers, addr) })
	return err
}

// farewell is for how long an ended session may take to come to rest inside gobgp.
const farewell = 15 * time.Second

// forgetPeer has gobgp drop the peer and all that was learned from it.
func (s *Speaker) forgetPeer(ctx context.Context, p Peer, addr netip.Addr, why string) error {
	s.end(addr, why)
	quiet, cancel := context.WithTimeout(ctx, farewell)
	s.sessions.AwaitQuiet(quiet, addr)
	cancel()
	err := s.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: addr.String()})
	if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "can't delete a peer configuration") { // never added
		return fmt.Errorf("forget peer %s at %s: %w", p.Name, addr, err)
	}
	return nil
}

func (s *Speaker) listenRanges(ctx context.Context) error {
	if len(s.cfg.Listen) == 0 {
		return nil
	}
	if err := s.srv.AddPeerGroup(ctx, &api.AddPeerGroupRequest{PeerGroup: s.self.Group(s.cfg.ListenAs)}); err != nil {
		return fmt.Errorf("add peer group: %w", err)
	}
	for _, r := range s.cfg.Listen {
		err := s.srv.AddDynamicNeighbor(ctx, &api.AddDynamicNeighborRequest{
			DynamicNeighbor: &api.DynamicNeighbor{Prefix: r.String(), PeerGroup: say.DynamicGroup},
		})
		if err != nil {
			return fmt.Errorf("add listen range %s: %w", r, err)
		}
	}
	return nil
}

// addPeer has gobgp speak with a peer at an address. An error is the peer's own trouble, and may pass.
func (s *Speaker) addPeer(ctx context.Context, p Peer, addr netip.Addr) error {
	other, ok := s.sessions.Bind(p.Name, addr)
	if !ok && other.Dynamic { // it has become a configured peer
		if err := s.forgetPeer(ctx, p, addr, "a configured peer from now on"); err != nil {
			return err
		}
		s.sessions.Forget(addr)
		other, ok = s.sessions.Bind(p.Name, addr)
	}
	if !ok {
		return fmt.Errorf("%s is %s already", addr, other.Peer)
	}
	_, err := s.changePolicy(ctx, func(in *say.Policy) { in.Peers[addr] = p.Settings })
	if err == nil {
		err = s.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: s.self.Peer(p, addr)})
	}
	if err == nil || ctx.Err() != nil {
		return nil
	}
	s.sessions.Release(p.Name)
	_, policy := s.changePolicy(ctx, func(in *say.Policy) { delete(in.Peers, addr) })
	return errors.Join(fmt.Errorf("add peer %s at %s: %w", p.Name, addr, err), policy)
}

// lookUpPatience is for how long a silent resolver is nothing to speak of.
const lookUpPatience = 500 * time.Millisecond

// resolve finds the peer's address now, and says so when that takes long. Of several it is the one that is used, if it is
// of any use, or else the next.
func (s *Speaker) resolve(ctx context.Context, p Peer, have netip.Addr) (netip.Addr, error) {
	if p.Interface || isLink(p.Name) {
		if s.cfg.Neighbor == nil {
			return netip.Addr{}, errors.New("peers by link are not looked for")
		}
		return s.cfg.Neighbor(ctx, p.Name)
	}
	slow := time.AfterFunc(lookUpPatience, func() { s.stillLooking(p.Name) })
	defer slow.Stop()
	all, err := s.lookUp(ctx, p.Name)
	if err != nil {
		return netip.Addr{}, err
	}
	at := slices.Index(all, have)
	if at >= 0 && !s.sessions.Stuck(have) {
		return have, nil
	}
	return all[(at+1)%len(all)], nil
}

// isLink reports that this host has a link of that name, which goes before a host of that name.
func isLink(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

// Resolve finds the address of a name, in /etc/hosts or in DNS: IPv4 where there is one.
func Resolve(ctx context.Context, name string) (netip.Addr, error) {
	all, err := lookUp(ctx, name)
	if err != nil {
		return netip.Addr{}, err
	}
	return all[0], nil
}

// lookUp finds the addresses of a name: those of IPv4, then those of IPv6, each in the resolver's order.
func lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", name)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return slices.Compact(addrs), nil
}

// most is the longest rest between two attempts.
func most(p Peer) time.Duration { return or(p.ConnectRetry, retryMost) }

// pause waits for d or the end of ctx and returns how long to wait the next time, at most most.
func pause(ctx context.Context, d, most time.Duration) time.Duration {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return min(2*d, most)
}
