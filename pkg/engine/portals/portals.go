// SPDX-License-Identifier: Apache-2.0

// Package portals keeps what a node answers as its sources say: it decides, gives each data plane its part, and tells what
// is in force. It knows neither where Services come from nor how a portal is answered.
package portals

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Plane is one way to answer portals.
type Plane interface {
	// Apply makes traffic follow t. It is idempotent and leaves what is right alone.
	Apply(ctx context.Context, t portal.Table, tune map[service.Name]tuning.Settings) error
	// Forget makes the next Apply compare the kernel with what it should hold, whatever earlier ones have left there.
	Forget() error
	// Cleanup removes everything that Apply ever made, also by another process. It is no error if there is nothing.
	Cleanup(ctx context.Context) error
}

// Proxy is the Plane of userspace mode.
type Proxy interface {
	Plane
	// Ports are the proxy ports as last applied.
	Ports() map[portal.Key]uint16
	// Stats are the counters of portals that are served now.
	Stats() map[portal.Key]traffic.Stats
}

// Options wire a Keeper. All but the functions are needed.
type Options struct {
	Mode Mode           // of services that do not say
	Nets []netip.Prefix // portal nets, as known at start
	Node node.Node      // as known at start

	NodePorts []netip.Prefix // which of the node's addresses answer NodePorts: those inside; none: its first of each family
	Localhost bool           // 127.0.0.1 answers them too, for the node's own processes

	Kernel Plane
	Proxy  Proxy
	Log    *slog.Logger

	// Prepare makes the host fit for portals, or tells why nothing may be programmed on it. It runs at first, when
	// the node or the nets change, after an error and whenever the rules are looked at.
	Prepare func(node.Node, []netip.Prefix) error
	// HealthPorts opens the health check ports of services and reports those that cannot be; nil: they stay closed.
	HealthPorts func(map[uint16]HealthPort) []error
	// Flows ends the flows of a protocol that are led as few says or, where few is nil, those of which stale says so; but of
	// protocols other than UDP only those that nobody has answered yet. nil: they stay.
	Flows func(p service.Protocol, few []Led, stale func(Led) bool) error
	// Settled is called once, when everything is in force for the first time.
	Settled func() error
}

// Keeper keeps the data planes of one node as the sources said last.
type Keeper struct {
	o     Options
	once  sync.Once // Settled
	moved rings     // when what is in force has changed
	meter

	// Owned by Sync.
	prepared   bool                 // the host is fit, as far as known
	idle       map[Plane]bool       // what is not in use and has been cleaned up
	flowsError string               // why stale flows could not be forgotten; empty: they were
	portErrors []error              // health ports that are closed
	denied     portal.NotProgrammed // what the kernel refuses
	unguarded  error                // why what no service has of the portal nets is not refused, in userspace mode

	mu         sync.Mutex     // guards the rest; what d holds is changed by Sync alone, with mu, and read by Sync also without
	d          *decider       // for decided; nil: no source has said anything
	decided    node.Node      // the node as d has it
	decidedFor []netip.Prefix // the portal nets as d has them
	told       bool           // a source has said something
	delta      service.Delta  // what it said and d does not know
	source     error          // what is wrong with the sources
	node       node.Node
	nets       []netip.Prefix
	distrust   bool      // others have changed our rules
	news       uint64    // counts what the sources said
	programmed uint64    // the news that are in force
	behind     time.Time // since when the kernel has not been what it should be; zero: it is

	// What is in force.
	lastSync  time.Time
	lastError string
	services  int
	ports     map[portal.Key]uint16
	problems  map[string]bool
}

// New returns a Keeper that has programmed nothing yet.
func New(o Options) *Keeper {
	return &Keeper{o: o, node: o.Node, nets: o.Nets, idle: map[Plane]bool{}, delta: service.Delta{}}
}

// Change takes in what has changed in what the sources say, and everything that is wrong with them. The first time it must
// be all that there is. A Sync must follow.
func (k *Keeper) Change(d service.Delta, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.delta.Merge(d)
	k.told, k.source = true, err
	k.pending()
}

// SetNode takes in what is known of the node now and reports whether that is news. Then a Sync must follow.
func (k *Keeper) SetNode(n node.Node) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Equal(n.Encode(), k.node.Encode()) {
		return false
	}
	k.node = n
	k.pending()
	return true
}

// SetNets takes in where Services get their addresses from now and reports whether that is news. Then a Sync must follow.
func (k *Keeper) SetNets(nets []netip.Prefix) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Equal(nets, k.nets) {
		return false
	}
	k.nets = nets
	k.pending()
	return true
}

// Distrust takes in that others have changed the rules that are in force. Then a Sync must follow, which repairs them.
func (k *Keeper) Distrust() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.distrust {
		k.o.Log.Warn("others changed our rules, repairing them")
	}
	k.distrust = true
}

// Doubt takes in that somebody, maybe Sync itself, has changed rules that are in force. Then a Sync must follow, which looks.
func (k *Keeper) Doubt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.distrust = true
}

// Node is what is known of the node.
func (k *Keeper) Node() node.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.node
}

// pending notes that the kernel is behind from now on, unless it has been for longer. The caller holds mu.
func (k *Keeper) pending() {
	k.news++
	if k.behind.IsZero() {
		k.behind = time.Now()
	}
}

// Sync brings the data planes to what the sources said last; without news it repairs what others did to our rules.
// It does nothing before the first Change. Calls must not overlap.
func (k *Keeper) Sync(ctx context.Context) error {
	began := time.Now()
	k.mu.Lock()
	if !k.told {
		k.mu.Unlock()
		return nil
	}
	k.decide()
	want, source, n, nets, news := k.d.want(), k.source, k.node, k.nets, k.news
	look := k.distrust || news == k.programmed
	k.distrust = false
	k.mu.Unlock()
	if h := &k.d.health; k.o.HealthPorts != nil && (h.changed || look || len(k.portErrors) > 0) {
		k.portErrors, h.changed = k.o.HealthPorts(h.ports()), false
	}
	err := k.sync(ctx, want, n, nets, look)
	k.complain(slices.Concat(flatten(source), want.Problems, k.portErrors, k.denied.Each(), flatten(k.unguarded)))
	k.syncTime.observe(time.Since(began))
	defer k.moved.ring()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.syncErrors.Add(1)
		k.lastError = err.Error()
		k.distrust = k.distrust || look
		k.prepared = false
		if k.behind.IsZero() {
			k.behind = time.Now()
		}
		return err
	}
	k.settle(news)
	return nil
}

// decide brings d to what is known. The caller holds mu.
func (k *Keeper) decide() {
	switch {
	case k.d == nil:
		k.d = newDecider(k.options(), k.o.Mode)
	case !slices.Equal(k.node.Encode(), k.decided.Encode()) || !slices.Equal(k.nets, k.decidedFor):
		k.d, k.prepared = k.d.moved(k.options()), false
	}
	k.decided, k.decidedFor = k.node, k.nets
	k.d.update(k.delta)
	k.delta = service.Delta{}
}

func (k *Keeper) sync(ctx context.Context, want Desired, n node.Node, nets []netip.Prefix, look bool) error {
	if k.o.Prepare != nil && (look || !k.prepared) {
		if err := k.o.Prepare(n, nets); err != nil {
			return err
		}
		k.prepared = true
	}
	if look {
		if err := errors.Join(k.o.Kernel.Forget(), k.o.Proxy.Forget()); err != nil {
			return err
		}
	}
	if err := k.Program(ctx, want); err != nil && !errors.As(err, &k.denied) {
		return err
	} else if err == nil {
		k.denied = nil
	}
	k.forget(want)
	return nil
}

// settle notes that what d wants is in force. The caller holds mu.
func (k *Keeper) settle(news uint64) {
	portsBefore := k.ports
	k.services, k.ports, k.lastSync, k.lastError = k.d.memo.Services(), k.o.Proxy.Ports(), time.Now(), ""
	k.syncs.Add(1)
	if !k.behind.IsZero() {
		k.programTime.observe(k.lastSync.Sub(k.behind))
	}
	k.behind, k.programmed = time.Time{}, news
	if k.news != news { // something came while the kernel was busy
		k.behind = k.lastSync
	}
	k.d.denied = k.denied
	k.tell(portsBefore)
	k.d.settled()
	k.once.Do(func() {
		if k.o.Settled != nil {
			if err := k.o.Settled(); err != nil {
				k.o.Log.Warn("service manager", "error", err)
			}
		}
	})
}

// Program gives each data plane its part, first to the one that takes portals over from the other, so that no portal is
// without an answer in between; then it cleans up a data plane that has no part. A portal.NotProgrammed tells of services
// that are left out; everything else is done then.
func (k *Keeper) Program(ctx context.Context, want Desired) error {
	type part struct {
		plane Plane
		table portal.Table
		used  bool
	}
	parts := []part{
		{k.o.Kernel, want.Kernel, k.o.Mode == NFTables || len(want.Kernel.Portals) > 0 || len(want.Kernel.Nets) > 0},
		{k.o.Proxy, want.User, k.o.Mode == Userspace || len(want.User.Portals) > 0},
	}
	var denied portal.NotProgrammed
	if k.d != nil && k.d.handsOver() {
		slices.Reverse(parts)
	}
	for _, p := range parts {
		if p.used {
			k.idle[p.plane] = false
			err := p.plane.Apply(ctx, p.table, want.Tuning)
			if p.plane == k.o.Kernel && k.o.Mode == Userspace && len(p.table.Portals) == 0 {
				k.unguarded, err = err, nil // a kernel that cannot: portals need it not
			}
			if err != nil && !errors.As(err, &denied) {
				return err
			}
		}
	}
	for _, p := range parts {
		if !p.used && !k.idle[p.plane] {
			if err := p.plane.Cleanup(ctx); err != nil {
				return err
			}
			k.idle[p.plane] = true
		}
	}
	if len(denied) > 0 {
		return denied
	}
	return nil
}

// handsOver reports that the proxy takes portals over from the kernel.
func (d *decider) handsOver() bool {
	for key, was := range d.before {
		if _, now := d.user.Portals[key]; now && was.by == NFTables {
			return true
		}
	}
	return false
}
