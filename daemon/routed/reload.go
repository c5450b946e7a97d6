// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/systemd"
)

// followConfig reads the configuration again on SIGHUP and when the file changes.
func (d *wiring) followConfig(ctx context.Context) error {
	files, err := watchFiles()
	if err != nil { // the kernel's limits: SIGHUP is left
		d.log.Warn("changes of the configuration are taken over on SIGHUP only", "problem", err)
	}
	defer files.close()
	d.watch(files)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.signals.reload:
		case <-files.changed:
			select { // an editor writes in several steps
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
		}
		d.tellManager(systemd.Reload)
		d.reload()
		d.watch(files) // it may name other keys
		d.tellManager(systemd.Ready)
	}
}

// watch has the files watched that the configuration is made of.
func (d *wiring) watch(files watched) {
	for _, path := range append([]string{d.flags.conf}, d.conf.Load().keyFiles...) {
		if err := files.add(path); err != nil {
			d.log.Warn("changes of a file are taken over on SIGHUP only", "file", path, "problem", err)
		}
	}
}

// watched tells when anything happens in the directories of files: editors and ConfigMaps replace files by renaming.
type watched struct {
	changed chan struct{}
	w       *fsnotify.Watcher
}

func watchFiles() (watched, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return watched{}, fmt.Errorf("watch configuration: %w", err)
	}
	f := watched{changed: make(chan struct{}, 1), w: w}
	go func() { // ends with close
		for {
			select {
			case _, ok := <-w.Events:
				if !ok {
					return
				}
			case <-w.Errors: // an overflow: look, too
			}
			select {
			case f.changed <- struct{}{}:
			default:
			}
		}
	}()
	return f, nil
}

func (f watched) add(path string) error {
	if path == "" || f.w == nil {
		return nil
	}
	return f.w.Add(filepath.Dir(path))
}

func (f watched) close() {
	if f.w != nil {
		_ = f.w.Close()
	}
}

// reload puts a changed configuration in force. A bad one, or one that needs a restart, leaves the last good one.
func (d *wiring) reload() {
	d.reloads.Lock()
	defer d.reloads.Unlock()
	old := d.conf.Load()
	now, err := d.flags.config()
	if err == nil && !old.asking {
		err = restartNeeded(*old, now)
	}
	if err != nil {
		problem := strings.ReplaceAll(err.Error(), "\n", "; ")
		d.log.Error("configuration refused, keeping the last good one", "problem", problem)
		d.state.configured(problem)
		return
	}
	d.state.configured("")
	if sameLive(*old, now) {
		return
	}
	if !now.asking {
		defer d.known.Do(func() { close(d.isKnown) })
	}
	d.log.Info("configuration changed", "peers", len(now.peers), "podSubnets", now.podSubnets)
	d.conf.Store(&now)
	d.state.reconfigured(now)
	for _, p := range old.peers {
		if !slices.ContainsFunc(now.peers, func(x bgp.Peer) bool { return x.Name == p.Name }) {
			d.uplinks.drop(p.Name)
		}
	}
	d.publish()
	if d.speaker == nil {
		return // it will begin with this
	}
	d.speaker.SetPeers(now.peers)
	d.withhold(now)
	d.router.SetPolicy(policy(now))
	d.router.SetIntents(d.intents())
	d.loop.Trigger()
}

// withhold has the speaker pass on nothing that the router itself refuses whoever tells it.
func (d *wiring) withhold(c config) {
	if err := d.speaker.Withhold(policy(c).Never()); err != nil {
		d.log.Warn("what is passed on is not up to date", "problem", err)
	}
}

// sameLive compares what can change while the process runs.
func sameLive(a, b config) bool {
	return reflect.DeepEqual(a.peers, b.peers) && slices.Equal(a.podSubnets, b.podSubnets) && slices.Equal(a.accept, b.accept) &&
		a.defRoute == b.defRoute && a.vips == b.vips && a.keep == b.keep && a.asking == b.asking && a.zone == b.zone && a.onCordon == b.onCordon
}

func sameFamilies(a, b config) bool {
	a4, a6 := a.families()
	b4, b6 := b.families()
	return a4 == b4 && a6 == b6
}

// restartNeeded names every key that cannot change while the process runs.
func restartNeeded(old, now config) error {
	var keys []string
	differs := func(key string, is bool) {
		if is {
			keys = append(keys, key)
		}
	}
	differs("node", old.node != now.node)
	differs("asn", old.asn != now.asn)
	differs("routerID", old.routerID != now.routerID)
	differs("listenRanges", !slices.Equal(old.listen, now.listen))
	differs("listenGroup", !reflect.DeepEqual(old.listenAs, now.listenAs))
	differs("transit", old.transit != now.transit)
	differs("accept (with transit)", now.transit && !slices.Equal[[]route.Accept](old.accept, now.accept))
	differs("accept (another address family)", !sameFamilies(old, now))
	differs("port", old.port != now.port)
	differs("localAddress", old.local != now.local)
	differs("holdTime", old.hold != now.hold)
	differs("restartTime", old.restart != now.restart)
	differs("bmp", !slices.Equal(old.collectors, now.collectors))
	differs("portaldSocket", old.portald != now.portald)
	differs("metrics", old.metrics != now.metrics)
	differs("nodeFile", old.nodeFile != now.nodeFile)
	differs("socket", old.socket != now.socket)
	differs("kubernetes, kubeconfig, apiServer", !reflect.DeepEqual(old.api, now.api))
	if len(keys) == 0 {
		return nil
	}
	return fmt.Errorf("restart routed to change %s", strings.Join(keys, ", "))
}
