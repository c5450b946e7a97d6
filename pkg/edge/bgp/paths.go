// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
)

func (s *Speaker) watch(ctx context.Context) error {
	err := s.srv.WatchEvent(context.WithoutCancel(ctx), server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) {
			most := func(peer netip.Addr) uint32 { return s.settings(peer).MaxPrefixes }
			if peer := s.learned.Apply(paths, most); peer.IsValid() {
				s.drop(peer, fmt.Sprintf("the peer sent more than %d prefixes; cut off for a minute", most(peer)), true)
			}
		},
		OnPeerUpdate: s.peerEvent,
		OnPathEor: func(p *apiutil.Path, _ time.Time) {
			if p.PeerAddress.IsValid() {
				s.synced(p.PeerAddress, func(x *session.Entry) {
					delete(x.Untold, p.Family)
					x.Synced = x.State == Established && len(x.Untold) == 0
				})
				s.learned.Signal()
			}
		},
	}, server.WatchBestPath(true), server.WatchPeer(), server.WatchEor(true))
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}

// Changed tells that Take has something to give. One token stands for any number of changes.
func (s *Speaker) Changed() <-chan struct{} { return s.learned.Changed() }

// Take returns every prefix that changed since the last call; no way means that the prefix is gone.
func (s *Speaker) Take() []route.Learned { return s.learned.Take() }

// Learned returns all prefixes.
func (s *Speaker) Learned() []route.Learned { return s.learned.All() }

// Announce makes set the prefixes of our own that every peer is told, with ourselves as next hop. It is idempotent;
// what is not in set any more is withdrawn.
func (s *Speaker) Announce(set []route.Announcement) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[netip.Prefix]bool{}
	for _, a := range set {
		want[a.Prefix] = true
		if s.announced[a.Prefix] == a {
			continue
		}
		p, err := s.self.Path(a)
		if err != nil {
			return err
		}
		if _, err := s.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{p}}); err != nil {
			return fmt.Errorf("announce %s: %w", a.Prefix, err)
		}
		s.announced[a.Prefix] = a
	}
	for prefix := range s.announced {
		if want[prefix] {
			continue
		}
		p, err := s.self.Path(route.Announcement{Prefix: prefix})
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
