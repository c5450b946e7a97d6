// SPDX-License-Identifier: Apache-2.0

// Package bgp speaks BGP-4 (RFC 4271) through gobgp: sessions, what was learned, what is announced. It is the only
// package that knows gobgp, and it knows no kernel and no policy of the node's own table.
//
// gobgp dials a peer no sooner than every two seconds, which is most of a restart. So we dial ourselves (dial.go) and
// hand the connection over as if it had been accepted; that also lets a peer that is not ready yet be asked again
// after 250 ms, without the five seconds that gobgp rests after each failure.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"

	"github.com/l3edge/l3edge/pkg/core/peer"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp/learned"
	"github.com/l3edge/l3edge/pkg/edge/bgp/reach"
	"github.com/l3edge/l3edge/pkg/edge/bgp/say"
	"github.com/l3edge/l3edge/pkg/edge/bgp/session"
)

// Port is BGP's (RFC 4271 section 8).
const Port = say.Port

// What a peer is stands in package peer.
type (
	// Settings are of package peer.
	Settings = peer.Settings
	// Out is of package peer.
	Out = peer.Out
	// Peer is of package peer.
	Peer = peer.Peer
	// Community is of package peer.
	Community = peer.Community
)

// Config is all that a Speaker needs to know. RouterID and ASN are mandatory.
type Config struct {
	ASN          uint32
	RouterID     netip.Addr
	Port         int        // we listen here; 0: 179
	LocalAddress netip.Addr // the address that we listen on and connect from; zero: any
	IPv4, IPv6   bool       // the families of prefixes that are spoken about; none: IPv4
	Peers        []Peer
	Listen       []netip.Prefix   // whoever connects from here is a peer, whatever its ASN (dynamic neighbours)
	ListenAs     Settings         // and is spoken to so
	Transit      []route.Accept   // learned prefixes that are announced on to other peers; empty: only our own are announced
	Hold         time.Duration    // hold time; keepalives are sent three times as often. 0: 9 s
	RestartTime  time.Duration    // peers keep our routes so long while we restart (RFC 4724). 0: 120 s
	Restarting   bool             // the kernel still holds the routes of the process before us
	Collectors   []netip.AddrPort // are told all that peers say (BMP, RFC 7854)
	// Neighbor finds the router at the other end of a link. Nil: peers with Interface are never found.
	Neighbor func(ctx context.Context, link string) (netip.Addr, error)
}

// Where sessions stand is kept in package session.
type (
	// State is of package session.
	State = session.State
	// Session is of package session.
	Session = session.Session
)

// States of a session.
const (
	Unresolved  = session.Unresolved
	Idle        = session.Idle
	Active      = session.Active
	OpenSent    = session.OpenSent
	OpenConfirm = session.OpenConfirm
	Established = session.Established
)

// Speaker is a BGP speaker. Its methods may be called from any goroutine once Run has begun.
type Speaker struct {
	cfg       Config
	self      say.Self
	log       *slog.Logger
	onSession func(Session)
	sendAll   func(peer netip.Addr)                                        // softOut, but for tests
	lookUp    func(ctx context.Context, name string) ([]netip.Addr, error) // lookUp, but for tests
	srv       *server.BgpServer
	started   chan struct{}
	ready     chan struct{} // closed by the first Announce
	begin     func()
	keep      atomic.Bool
	ending    atomic.Bool // by our own will: nobody needs to be told that sessions end
	peers     chan []Peer // a new set, from SetPeers

	learned  *learned.Table
	sessions *session.Book

	mu        sync.Mutex
	announced map[netip.Prefix]route.Announcement
	policy    say.Policy
	reason    string // that peers are told at the end (RFC 9003)
}

// New makes a speaker. onSession, if not nil, is told of every change of a session's state or problem, one at a time;
// gobgp's own warnings go to log.
func New(cfg Config, log *slog.Logger, onSession func(Session)) *Speaker {
	cfg.Port = or(cfg.Port, Port)
	cfg.Hold = or(cfg.Hold, 9*time.Second)
	cfg.RestartTime = or(cfg.RestartTime, 120*time.Second)
	cfg.IPv4 = cfg.IPv4 || !cfg.IPv6
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if onSession == nil {
		onSession = func(Session) {}
	}
	var turn sync.Mutex
	inTurn := func(x Session) {
		turn.Lock()
		defer turn.Unlock()
		onSession(x)
	}
	s := &Speaker{cfg: cfg, log: log, onSession: inTurn, started: make(chan struct{}), ready: make(chan struct{}), peers: make(chan []Peer, 1), announced: map[netip.Prefix]route.Announcement{}, policy: say.Policy{ASN: cfg.ASN, Transit: cfg.Transit, Listen: cfg.Listen, ListenAs: cfg.ListenAs, Peers: map[netip.Addr]Settings{}}}
	s.self = say.Self{
		ASN: cfg.ASN, RouterID: cfg.RouterID, LocalAddress: cfg.LocalAddress, IPv4: cfg.IPv4, IPv6: cfg.IPv6,
		Hold: cfg.Hold, RestartTime: cfg.RestartTime, Restarting: cfg.Restarting,
	}
	s.sendAll, s.lookUp = s.softOut, lookUp
	s.begin = sync.OnceFunc(func() { close(s.ready) })
	s.learned = learned.New()
	s.sessions = session.New(names(cfg.Peers)...)
	return s
}

func names(peers []Peer) (out []string) {
	for _, p := range peers {
		out = append(out, p.Name)
	}
	return out
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// SetPeers replaces the set of peers. A peer that stays as it was keeps its session.
func (s *Speaker) SetPeers(peers []Peer) {
	select { // only the newest set counts
	case <-s.peers:
	default:
	}
	s.peers <- peers
}

// Because gives the reason for the coming end of Run, which peers are told (RFC 9003).
func (s *Speaker) Because(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = text
}

// HandOver makes the coming end of Run look like a crash to the peers: no Cease is sent, and they keep our routes for
// RestartTime because our successor will be back (RFC 4724).
func (s *Speaker) HandOver() { s.keep.Store(true) }

// Started is closed when the speaker listens and Announce may be called.
func (s *Speaker) Started() <-chan struct{} { return s.started }

// Run listens, keeps sessions with all peers and returns when ctx ends, having told the peers (Cease) unless HandOver
// was called. A port that is taken is an error at once. No peer is talked to before the first Announce: End-of-RIB
// after an empty table would make the peers sweep the routes that they kept over our restart.
func (s *Speaker) Run(ctx context.Context) error {
	s.srv = server.NewBgpServer(server.LoggerOption(reach.Log(s.log, s.hasSaid), nil))
	go s.srv.Serve()
	if err := s.start(ctx); err != nil {
		return errors.Join(err, s.srv.StopBgp(context.WithoutCancel(ctx), &api.StopBgpRequest{}))
	}
	close(s.started)
	err := s.keepPeers(ctx)
	s.ending.Store(true)
	s.sayGoodbye()
	bfd := reach.StopBFD(s.srv)
	stop := s.srv.StopBgp(context.WithoutCancel(ctx), &api.StopBgpRequest{AllowGracefulRestart: s.keep.Load()})
	s.endBFD(bfd)
	if stop != nil {
		stop = fmt.Errorf("stop bgp: %w", stop)
	}
	return errors.Join(err, stop)
}

func (s *Speaker) keepPeers(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ready:
	}
	if err := s.listenRanges(ctx); err != nil {
		return fmt.Errorf("start bgp: %w", err)
	}
	return s.followPeers(ctx, s.cfg.Peers)
}

func (s *Speaker) start(ctx context.Context) error {
	err := s.srv.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn:              s.cfg.ASN,
		RouterId:         s.cfg.RouterID.String(),
		ListenPort:       int32(s.cfg.Port),
		ListenAddresses:  s.listenOn(),
		UseMultiplePaths: true,
		Families:         s.tables(),
	}})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen: port %d is taken by another program; `ss -ltnp sport = :%d` names it: %w", s.cfg.Port, s.cfg.Port, err)
	}
	if err != nil {
		return fmt.Errorf("start bgp: %w", err)
	}
	if err := reach.Farthest(s.srv, say.MaxTTL); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.assignPolicies, s.watch, s.tellCollectors} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("start bgp: %w", err)
		}
	}
	return nil
}

// tables are the families that gobgp keeps tables for, as it counts them. Left to itself it makes an empty table of 2048
// parts for each of some twenty families, twice: 8 MB.
func (s *Speaker) tables() []uint32 {
	var out []uint32
	if s.cfg.IPv4 {
		out = append(out, 0)
	}
	if s.cfg.IPv6 {
		out = append(out, 1)
	}
	return out
}

// listenOn are the addresses to listen on: one that is configured, or any of each family that this host has.
func (s *Speaker) listenOn() []string {
	if s.cfg.LocalAddress.IsValid() {
		return []string{s.cfg.LocalAddress.String()}
	}
	any := []string{"0.0.0.0"}
	if l, err := net.Listen("tcp6", "[::]:0"); err == nil { // a kernel may have no IPv6
		_ = l.Close()
		any = append(any, "::")
	}
	return any
}

func (s *Speaker) tellCollectors(ctx context.Context) error {
	for _, c := range s.cfg.Collectors {
		err := s.srv.AddBmp(ctx, &api.AddBmpRequest{
			Address: c.Addr().String(), Port: uint32(c.Port()), Policy: api.AddBmpRequest_MONITORING_POLICY_PRE,
			SysName: s.cfg.RouterID.String(), SysDescr: "l3edge routed",
		})
		if err != nil {
			return fmt.Errorf("tell collector %s: %w", c, err)
		}
	}
	return nil
}

// sayGoodbye tells the peers why the session ends, in the NOTIFICATION that ends it (RFC 9003).
func (s *Speaker) sayGoodbye() {
	s.mu.Lock()
	reason := s.reason
	s.mu.Unlock()
	if reason == "" || s.keep.Load() {
		return
	}
	_ = s.srv.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{Communication: reason}) // there may be no peer
	s.sessions.AwaitAllGone(time.Second)
}
