// SPDX-License-Identifier: Apache-2.0

// Package proxy carries connections to service endpoints in user space: accept, choose an endpoint, connect, splice.
//
//	client ──▶ VIP:80 ──(rule)──▶ :39770 proxy ──▶ endpoint:8080
//	           one TCP connection        another TCP connection
//
// Every portal of the Table has a proxy port of its own, on which the proxy listens as long as the portal has endpoints.
// The package knows nothing of the rules that lead traffic to its ports.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Options tune a Proxy. The zero value works.
type Options struct {
	Log *slog.Logger // nil: silent

	// Ports are the proxy ports that portals had before, so that they keep them over a restart. A port that somebody
	// else has taken meanwhile is replaced by another.
	Ports map[portal.Key]uint16

	// Keeper keeps listening sockets over a restart, so that no client is refused in between; nil: nobody does.
	Keeper Keeper

	MaxConns    int           // most TCP connections of all portals together; default 0: no limit
	UDPSessions int           // most UDP sessions of one portal whose service does not say; default 4096
	Drain       time.Duration // how long connections may go on after the end of Run's context; default 0: not at all
}

// Keeper is somebody who outlives the process.
type Keeper interface {
	// Take returns the socket that an earlier process left under the name, once, or nil. The caller closes it.
	Take(name string) *os.File
	// Put leaves a copy of the socket.
	Put(name string, socket syscall.Conn) error
	// Drop closes what was left under the name, perhaps a little later.
	Drop(name string) error
}

// nobodyKeeps is the Keeper of processes that have none.
type nobodyKeeps struct{}

func (nobodyKeeps) Take(string) *os.File           { return nil }
func (nobodyKeeps) Put(string, syscall.Conn) error { return nil }
func (nobodyKeeps) Drop(string) error              { return nil }

func (o *Options) fill() {
	if o.Keeper == nil {
		o.Keeper = nobodyKeeps{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.UDPSessions <= 0 {
		o.UDPSessions = 4096
	}
}

// Proxy serves the portals of the Table that was applied last. Make it with New.
type Proxy struct {
	o Options

	ctx  context.Context // ends when connections must end
	kill context.CancelFunc
	live sync.WaitGroup // every goroutine of the proxy
	open atomic.Int64   // TCP connections

	mu     sync.Mutex // guards the rest; never held while a connection is served
	fronts map[portal.Key]*front
	ports  map[portal.Key]uint16 // of every front, and of portals that went and may come back
	last   portal.Table          // by its identity
	failed map[portal.Key]error  // portals of last that are not served
	given  map[portal.Key]uint16 // what Apply returned last; never changed
	closed bool
}

// New returns a proxy that serves nothing yet.
func New(o Options) *Proxy {
	o.fill()
	p := &Proxy{o: o, fronts: map[portal.Key]*front{}, ports: map[portal.Key]uint16{}, failed: map[portal.Key]error{}}
	maps.Copy(p.ports, o.Ports)
	p.ctx, p.kill = context.WithCancel(context.Background())
	return p
}

// Supports reports whether the proxy can carry the protocol.
func Supports(p service.Protocol) bool { return p == service.TCP || p == service.UDP }

// Apply makes the proxy serve exactly the portals of t, and returns the proxy port of each; the map is the same as long as
// no port changes, and the caller must not change it. New connections see the new endpoints when it returns; connections
// under way are left alone, except UDP sessions of endpoints that are gone. tune holds what services want that is not the
// default. On error the other portals are served all the same, and the returned ports are those that have one. Where t
// tells what has changed since the last call, only that is looked at, and what failed.
func (p *Proxy) Apply(t portal.Table, tune map[service.Name]tuning.Settings) (map[portal.Key]uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("apply portals: the proxy has been shut down")
	}
	look, whole := p.pending(t)
	moved := whole
	for key := range look {
		if _, stays := t.Portals[key]; !stays { // first, so that their ports are free for others
			p.drop(key)
			moved = true
		}
	}
	for key := range look {
		want, ok := t.Portals[key]
		if !ok {
			continue
		}
		if err := p.serve(key, want, t.Here, settings(tune, want)); err != nil {
			p.failed[key] = fmt.Errorf("open portal %s for %s: %w", key, want.Service, err)
			moved = true
			continue
		}
		delete(p.failed, key)
		moved = moved || p.given[key] != p.ports[key]
	}
	if moved {
		p.given = maps.Clone(p.ports)
		maps.DeleteFunc(p.given, func(key portal.Key, _ uint16) bool { return p.fronts[key] == nil })
	}
	p.last = t
	p.last.Portals = nil
	var errs []error
	for _, key := range slices.SortedFunc(maps.Keys(p.failed), portal.Key.Compare) {
		errs = append(errs, p.failed[key])
	}
	return p.given, errors.Join(errs...)
}

// pending are the portals that Apply must look at; whole: all that are and all that were.
func (p *Proxy) pending(t portal.Table) (look map[portal.Key]bool, whole bool) {
	look = map[portal.Key]bool{}
	changed, known := t.Since(p.last)
	for _, c := range changed {
		look[c.Key] = true
	}
	for key := range p.failed {
		look[key] = true
	}
	if known {
		return look, false
	}
	for key := range t.Portals {
		look[key] = true
	}
	for key := range p.ports {
		look[key] = true
	}
	return look, true
}

func settings(tune map[service.Name]tuning.Settings, want portal.Portal) tuning.Settings {
	if s, ok := tune[want.Service.Name]; ok {
		return s
	}
	return tuning.Default()
}

// drop ends a portal and gives up its port.
func (p *Proxy) drop(key portal.Key) {
	if f, ok := p.fronts[key]; ok {
		f.close()
	}
	delete(p.fronts, key)
	delete(p.ports, key)
	delete(p.failed, key)
}

// serve brings one front to what its portal wants.
func (p *Proxy) serve(key portal.Key, want portal.Portal, here []netip.Prefix, tune tuning.Settings) error {
	if !Supports(key.Protocol) {
		return fmt.Errorf("the userspace proxy cannot carry %s", key.Protocol)
	}
	f, ok := p.fronts[key]
	if !ok {
		f = &front{p: p, key: key}
	}
	f.retarget(want, here, tune)
	port, err := f.listen(p.ports[key], len(f.target.Load().backends) > 0)
	if err != nil {
		f.close()
		delete(p.fronts, key)
		return err
	}
	p.fronts[key], p.ports[key] = f, port
	return nil
}

// Run waits for the end of ctx, refuses new connections from then on, lets those under way go on for Drain and returns
// nil when no goroutine of the proxy is left.
func (p *Proxy) Run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	for _, f := range p.fronts {
		f.leave()
		f.close()
	}
	p.mu.Unlock()
	gone := make(chan struct{})
	go func() { p.live.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(p.o.Drain):
		p.kill()
		<-gone
	}
	p.kill()
	return nil
}

// Stats returns what each portal has done since it was opened.
func (p *Proxy) Stats() map[portal.Key]traffic.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[portal.Key]traffic.Stats, len(p.fronts))
	for key, f := range p.fronts {
		out[key] = f.stats()
	}
	return out
}
