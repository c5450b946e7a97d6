// SPDX-License-Identifier: Apache-2.0

// Package portals keeps what a node answers as its sources say: it decides, gives each data plane its part, and tells what
// is in force. It knows neither where Services come from nor how a portal is answered.
package portals

import (
	"context"
	"errors"
	"log/slog"
	"maps"
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
	Mode   Mode           // of services that do not say
	Nets   []netip.Prefix // portal nets
	Node   node.Node      // as known at start
	Kernel Plane
	Proxy  Proxy
	Log    *slog.Logger

	// Prepare makes the host fit for portals, or tells why nothing may be programmed on it. It runs before each Sync.
	Prepare func(node.Node) error
	// HealthPorts opens the health check ports of services and reports those that cannot be; nil: they stay closed.
	HealthPorts func(map[uint16]HealthPort) []error
	// Flows ends those UDP flows, sent to one address and answered by another, of which stale says so; nil: they stay.
	Flows func(stale func(to, by netip.AddrPort) bool) error
	// Settled is called once, when everything is in force for the first time.
	Settled func() error
}

// Keeper keeps the data planes of one node as the sources said last.
type Keeper struct {
	o    Options
	once sync.Once // Settled
	meter

	// Owned by Sync.
	memo       *portal.Memo // for memoNode
	memoNode   node.Node
	idle       map[Plane]bool // what is not in use and has been cleaned up
	programmed uint64         // the news that are in force
	flowsError string         // why stale flows could not be forgotten; empty: they were

	mu       sync.Mutex // guards the rest
	snapshot *service.Snapshot
	source   error // what is wrong with the sources
	node     node.Node
	distrust bool      // others have changed our rules
	news     uint64    // counts what the sources said
	behind   time.Time // since when the kernel has not been what it should be; zero: it is

	// What is in force.
	lastSync  time.Time
	lastError string
	applied   Desired
	ports     map[portal.Key]uint16
	problems  map[string]bool
}

// New returns a Keeper that has programmed nothing yet.
func New(o Options) *Keeper { return &Keeper{o: o, node: o.Node, idle: map[Plane]bool{}} }

// SetSnapshot takes in what the sources say now, and what is wrong with them. A Sync must follow.
func (k *Keeper) SetSnapshot(s service.Snapshot, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.snapshot, k.source = &s, err
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

// Distrust takes in that others have changed the rules that are in force. Then a Sync must follow, which repairs them.
func (k *Keeper) Distrust() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.distrust {
		k.o.Log.Warn("others changed our rules, repairing them")
	}
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
// It does nothing before the first snapshot. Calls must not overlap.
func (k *Keeper) Sync(ctx context.Context) error {
	began := time.Now()
	k.mu.Lock()
	snapshot, source, n, news := k.snapshot, k.source, k.node, k.news
	look := k.distrust || news == k.programmed
	k.distrust = false
	k.mu.Unlock()
	if snapshot == nil {
		return nil
	}
	if k.memo == nil || !slices.Equal(n.Encode(), k.memoNode.Encode()) {
		k.memo, k.memoNode = portal.NewMemo(portal.Options{Node: n, Nets: k.o.Nets}), n
	}
	want := Decide(*snapshot, k.memo.Compute(*snapshot), k.o.Mode)
	if k.o.HealthPorts != nil {
		want.Problems = append(want.Problems, k.o.HealthPorts(healthPorts(*snapshot, n.Name))...)
	}
	k.complain(append(flatten(source), want.Problems...))
	err := k.sync(ctx, want, n, look)
	k.syncTime.observe(time.Since(began))
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.syncErrors.Add(1)
		k.lastError = err.Error()
		k.distrust = k.distrust || look
		if k.behind.IsZero() {
			k.behind = time.Now()
		}
		return err
	}
	k.settle(want, news)
	return nil
}

func (k *Keeper) sync(ctx context.Context, want Desired, n node.Node, look bool) error {
	if k.o.Prepare != nil {
		if err := k.o.Prepare(n); err != nil {
			return err
		}
	}
	if look {
		if err := errors.Join(k.o.Kernel.Forget(), k.o.Proxy.Forget()); err != nil {
			return err
		}
	}
	if err := k.Program(ctx, want); err != nil {
		return err
	}
	k.forget(want)
	return nil
}

// settle notes that want is in force. The caller holds mu.
func (k *Keeper) settle(want Desired, news uint64) {
	before, portsBefore := k.applied, k.ports
	k.applied, k.ports, k.lastSync, k.lastError = want, k.o.Proxy.Ports(), time.Now(), ""
	k.syncs.Add(1)
	if !k.behind.IsZero() {
		k.programTime.observe(k.lastSync.Sub(k.behind))
	}
	k.behind, k.programmed = time.Time{}, news
	if k.news != news { // something came while the kernel was busy
		k.behind = k.lastSync
	}
	k.tell(before.Table, portsBefore)
	k.once.Do(func() {
		if k.o.Settled != nil {
			if err := k.o.Settled(); err != nil {
				k.o.Log.Warn("service manager", "error", err)
			}
		}
	})
}

// Program gives each data plane its part, first to the one that takes portals over from the other, so that no portal is
// without an answer in between; then it cleans up a data plane that has no part.
func (k *Keeper) Program(ctx context.Context, want Desired) error {
	type part struct {
		plane Plane
		table portal.Table
		used  bool
	}
	parts := []part{
		{k.o.Kernel, want.Kernel, k.o.Mode == NFTables || len(want.Kernel.Portals) > 0},
		{k.o.Proxy, want.User, k.o.Mode == Userspace || len(want.User.Portals) > 0},
	}
	for key := range want.User.Portals {
		if _, was := k.applied.Kernel.Portals[key]; was {
			slices.Reverse(parts)
			break
		}
	}
	for _, p := range parts {
		if p.used {
			k.idle[p.plane] = false
			if err := p.plane.Apply(ctx, p.table, want.Tuning); err != nil {
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
	return nil
}

// complain logs the problems that are new and those that are gone.
func (k *Keeper) complain(problems []error) {
	now := make(map[string]bool, len(problems))
	for _, p := range problems {
		now[p.Error()] = true
	}
	k.mu.Lock()
	before := k.problems
	k.problems = now
	k.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(now)) {
		if !before[p] {
			k.o.Log.Error("problem", "error", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(before)) {
		if !now[p] {
			k.o.Log.Info("problem solved", "error", p)
		}
	}
}

// chatter is how many portals may open or close at once before the log counts them instead of naming them.
const chatter = 100

// tell logs which portals have opened and closed, in the article's words. The caller holds mu.
func (k *Keeper) tell(before portal.Table, portsBefore map[portal.Key]uint16) {
	look, known := k.applied.Table.Since(before)
	if !known || len(k.ports) > 0 || len(portsBefore) > 0 { // ports may change without their portals
		seen := maps.Clone(before.Portals)
		if seen == nil {
			seen = map[portal.Key]portal.Portal{}
		}
		maps.Copy(seen, k.applied.Table.Portals)
		look = slices.Collect(maps.Keys(seen))
	}
	say := func(msg string, in, notIn portal.Table, ports, notPorts map[portal.Key]uint16) {
		var keys []portal.Key
		for _, key := range look {
			p, ok := in.Portals[key]
			old, was := notIn.Portals[key]
			if ok && (!was || old.Service != p.Service || ports[key] != notPorts[key]) {
				keys = append(keys, key)
			}
		}
		if len(keys) > chatter {
			k.o.Log.Info(msg+"s", "count", len(keys))
			return
		}
		for _, key := range sorted(keys, in) {
			log := k.o.Log.With("service", short(in.Portals[key].Service), "portal", key.String())
			if ports[key] == 0 {
				log.Info(msg)
				continue
			}
			for _, from := range []string{"containers", "host"} {
				log.Info(msg, "from", from, "proxyPort", ports[key])
			}
		}
	}
	say("closed portal", before, k.applied.Table, portsBefore, k.ports)
	say("opened portal", k.applied.Table, before, k.ports, portsBefore)
}

// short is a service's name as the article's log has it: without the namespace when that is default.
func short(p service.PortName) string {
	s := p.String()
	if p.Namespace == "default" {
		return s[len("default/"):]
	}
	return s
}
