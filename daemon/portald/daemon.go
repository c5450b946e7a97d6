// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// daemon turns what its sources said last into what its data plane does.
type daemon struct {
	c       config
	log     *slog.Logger
	kernel  dataPlane
	user    *userspace
	idle    map[dataPlane]bool // what is not in use and has been cleaned up
	version string
	settled func() error // called once, when everything is in force for the first time; nil: was called

	syncs, syncErrors     atomic.Uint64
	syncTime, programTime histogram

	memo     *portal.Memo // for memoNode; both belong to sync
	memoNode node.Node

	mu       sync.Mutex // guards the rest
	snapshot *service.Snapshot
	source   error // what is wrong with the manifests
	node     node.Node
	news     uint64    // counts what the sources said
	behind   time.Time // since when the kernel has not been what it should be; zero: it is

	// What is in force.
	lastSync  time.Time
	lastError string
	applied   desired
	ports     map[portal.Key]uint16
	problems  map[string]bool
}

// setSnapshot takes in what the manifests say now.
func (d *daemon) setSnapshot(s service.Snapshot, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.snapshot, d.source = &s, err
	d.pending()
}

// setNode takes in what the node file says now.
func (d *daemon) setNode(n node.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node = n
	d.pending()
}

// pending notes that the kernel is behind from now on, unless it has been for longer. The caller holds mu.
func (d *daemon) pending() {
	d.news++
	if d.behind.IsZero() {
		d.behind = time.Now()
	}
}

func (d *daemon) nodeNow() node.Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.node
}

// sync brings the kernel to what the sources said last. It does nothing before the manifests have been read.
func (d *daemon) sync(ctx context.Context) error {
	d.mu.Lock()
	began := time.Now()
	snapshot, source, n, news := d.snapshot, d.source, d.node, d.news
	d.mu.Unlock()
	if snapshot == nil {
		return nil
	}
	if d.memo == nil || !slices.Equal(n.Encode(), d.memoNode.Encode()) {
		d.memo, d.memoNode = portal.NewMemo(portal.Options{Node: n, Nets: d.c.nets}), n
	}
	want := decide(*snapshot, d.memo.Compute(*snapshot), d.c.mode)
	d.complain(append(flatten(source), want.problems...))
	host, err := link.HostPrefixes()
	if err == nil {
		err = overlaps(d.c.nets, n, host)
	}
	if err == nil {
		err = d.program(ctx, want)
	}
	d.syncTime.observe(time.Since(began))
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.syncErrors.Add(1)
		d.lastError = err.Error()
		if d.behind.IsZero() {
			d.behind = time.Now()
		}
		return err
	}
	before, portsBefore := d.applied, d.ports
	d.applied, d.ports, d.lastSync, d.lastError = want, d.user.ports, time.Now(), ""
	d.syncs.Add(1)
	if !d.behind.IsZero() {
		d.programTime.observe(d.lastSync.Sub(d.behind))
	}
	d.behind = time.Time{}
	if d.news != news { // something came while the kernel was busy
		d.behind = d.lastSync
	}
	d.tell(before.table, portsBefore)
	if d.settled != nil {
		if err := d.settled(); err != nil {
			d.log.Warn("service manager", "error", err)
		}
		d.settled = nil
	}
	return nil
}

// program gives each data plane its part, first to the one that takes portals over from the other, so that no portal is
// without an answer in between; then it cleans up a data plane that has no part.
func (d *daemon) program(ctx context.Context, want desired) error {
	type part struct {
		plane dataPlane
		table portal.Table
		used  bool
	}
	parts := []part{
		{d.kernel, want.kernel, d.c.mode == modeNFTables || len(want.kernel.Portals) > 0},
		{d.user, want.user, d.c.mode == modeUserspace || len(want.user.Portals) > 0},
	}
	for key := range want.user.Portals {
		if _, was := d.applied.kernel.Portals[key]; was {
			slices.Reverse(parts)
			break
		}
	}
	for _, p := range parts {
		if p.used {
			d.idle[p.plane] = false
			if err := p.plane.Apply(ctx, p.table, want.tuning); err != nil {
				return err
			}
		}
	}
	for _, p := range parts {
		if !p.used && !d.idle[p.plane] {
			if err := p.plane.Cleanup(ctx); err != nil {
				return err
			}
			d.idle[p.plane] = true
		}
	}
	return nil
}

// complain logs the problems that are new and those that are gone.
func (d *daemon) complain(problems []error) {
	now := make(map[string]bool, len(problems))
	for _, p := range problems {
		now[p.Error()] = true
	}
	d.mu.Lock()
	before := d.problems
	d.problems = now
	d.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(now)) {
		if !before[p] {
			d.log.Error("problem", "error", p)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(before)) {
		if !now[p] {
			d.log.Info("problem solved", "error", p)
		}
	}
}

// flatten lists the errors that errors.Join has joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // only what Join made
		var out []error
		for _, one := range many.Unwrap() {
			out = append(out, flatten(one)...)
		}
		return out
	}
	return []error{err}
}

// chatter is how many portals may open or close at once before the log counts them instead of naming them.
const chatter = 100

// tell logs which portals have opened and closed, in the article's words. The caller holds mu.
func (d *daemon) tell(before portal.Table, portsBefore map[portal.Key]uint16) {
	say := func(msg string, in, notIn portal.Table, ports, notPorts map[portal.Key]uint16) {
		var keys []portal.Key
		for _, key := range sortedKeys(in) {
			old, ok := notIn.Portals[key]
			if !ok || old.Service != in.Portals[key].Service || ports[key] != notPorts[key] {
				keys = append(keys, key)
			}
		}
		if len(keys) > chatter {
			d.log.Info(msg+"s", "count", len(keys))
			return
		}
		for _, key := range keys {
			log := d.log.With("service", short(in.Portals[key].Service), "portal", key.String())
			if ports[key] == 0 {
				log.Info(msg)
				continue
			}
			for _, from := range []string{"containers", "host"} {
				log.Info(msg, "from", from, "proxyPort", ports[key])
			}
		}
	}
	say("closed portal", before, d.applied.table, portsBefore, d.ports)
	say("opened portal", d.applied.table, before, d.ports, portsBefore)
}

// short is a service's name as the article's log has it: without the namespace when that is default.
func short(p service.PortName) string {
	s := p.String()
	if p.Namespace == "default" {
		return s[len("default/"):]
	}
	return s
}

// readNode returns what the node file says. A missing file is no error: the node is known by its host name then.
func readNode(path string) (n node.Node, missing bool, err error) {
	n, err = nodefile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		name, err := os.Hostname()
		return node.Node{Name: name}, true, err
	}
	return n, false, err
}
