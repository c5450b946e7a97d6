// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/version"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/edge/file"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/engine/loop"
	"github.com/l3edge/l3edge/pkg/engine/proxy"
	"github.com/l3edge/l3edge/pkg/engine/task"
)

func logger(c config, w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: c.level}))
}

// checkNode reads the node file and refuses portal nets that overlap what is there.
func checkNode(c config) (n node.Node, missing bool, err error) {
	n, missing, err = readNode(c.nodeFile)
	if err != nil {
		return node.Node{}, false, err
	}
	host, err := link.HostPrefixes()
	if err != nil {
		return node.Node{}, false, err
	}
	return n, missing, overlaps(c.nets, n, host)
}

// serve is the daemon: it runs until ctx ends. In nftables mode the kernel goes on answering afterwards; in userspace
// mode the rules stay too, as the ports do, and clients are refused until portald is back.
func serve(ctx context.Context, c config, stderr io.Writer) error {
	log := logger(c, stderr)
	l, err := control.Listen(c.socket) // first of all: nothing is touched while another portald runs
	if err != nil {
		return err
	}
	n, missing, err := checkNode(c)
	if err != nil {
		_ = l.Close()
		return err
	}
	var metrics net.Listener
	if c.metrics != "" {
		if metrics, err = net.Listen("tcp", c.metrics); err != nil {
			_ = l.Close()
			return fmt.Errorf("--metrics: %w", err)
		}
	}
	if missing {
		log.Warn("no node file yet: pod subnets are unknown", "file", c.nodeFile)
	}
	k, err := openKeeper()
	if err != nil {
		log.Warn("sockets are not kept over a restart", "error", err)
	}
	d := &daemon{c: c, log: log, node: n, version: version.Version, settled: k.settle}
	d.wire(k)
	sync := loop.New(loop.Options{Name: "portals", Sync: d.sync, Log: log, Resync: c.resync})
	log.Info("portald started", "version", d.version, "mode", c.mode, "services", c.services, "portalNet", join(c.nets))
	defer log.Info("portald stopped")
	defer context.AfterFunc(ctx, func() { _ = k.store.Stopping() })() // only a courtesy
	tasks := []task.Task{}
	if metrics != nil {
		tasks = append(tasks, task.Task{Name: "metrics", Run: func(ctx context.Context) error { return serveTCP(ctx, metrics, d.metricsHandler()) }})
	}
	return task.Run(ctx, log, append(tasks,
		task.Task{Name: "proxy", Run: d.user.proxy.Run},
		task.Task{Name: "sync", Run: sync.Run},
		task.Task{Name: "manifests", Run: func(ctx context.Context) error {
			return file.Watch(ctx, c.services, func(s service.Snapshot, err error) {
				d.setSnapshot(s, err)
				sync.Trigger()
			})
		}},
		task.Task{Name: "node file", Run: func(ctx context.Context) error { return d.watchNode(ctx, sync.Trigger) }},
		task.Task{Name: "control", Run: func(ctx context.Context) error { return control.Serve(ctx, l, d.handler()) }},
	)...)
}

// wire gives the daemon its data planes. Nothing is touched yet.
func (d *daemon) wire(k proxy.Keeper) {
	file := portsFile{path: d.c.portsFile}
	ports, err := file.load()
	if err != nil {
		d.log.Warn("proxy ports are forgotten", "error", err)
	}
	p := proxy.New(proxy.Options{Log: d.log, Ports: ports, Drain: d.c.drain, Keeper: k})
	d.user = &userspace{proxy: p, file: file, node: d.nodeNow, families: map[bool]*family{}}
	d.kernel = newNFTables(d.log)
	d.idle = map[dataPlane]bool{}
}

// watchNode follows the node file. It asks for it now and then: it changes perhaps once in a node's life.
func (d *daemon) watchNode(ctx context.Context, changed func()) error {
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		n, _, err := readNode(d.c.nodeFile)
		if err != nil {
			if err.Error() != last {
				d.log.Error("cannot read the node file, keeping what it said", "error", err)
			}
			last = err.Error()
			continue
		}
		last = ""
		if slices.Equal(n.Encode(), d.nodeNow().Encode()) {
			continue
		}
		d.log.Info("node file changed", "file", d.c.nodeFile, "podSubnets", fmt.Sprint(n.PodSubnets))
		d.setNode(n)
		changed()
	}
}

// load reads and decides everything once, for the commands that do not stay.
func load(c config) (desired, *daemon, error) {
	n, _, err := checkNode(c)
	if err != nil {
		return desired{}, nil, err
	}
	d := &daemon{c: c, log: slog.New(slog.DiscardHandler), node: n}
	d.wire(nil)
	s, source := file.Load(c.services)
	want := decide(s, portal.Compute(s, portal.Options{Node: n, Nets: c.nets}), c.mode)
	want.problems = append(flatten(source), want.problems...)
	return want, d, nil
}

// dryRun prints the portals and what the kernel lacks.
func dryRun(_ context.Context, c config, out io.Writer) error {
	want, d, err := load(c)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, key := range sortedKeys(want.table) {
		fmt.Fprintf(&b, "# %s %s -> %v\n", want.table.Portals[key].Service, key, want.table.Portals[key].Endpoints)
	}
	for _, p := range want.problems {
		fmt.Fprintln(&b, "# problem:", p)
	}
	for _, part := range []struct {
		plane dataPlane
		mode  string
		table portal.Table
	}{{d.kernel, modeNFTables, want.kernel}, {d.user, modeUserspace, want.user}} {
		if c.mode != part.mode && len(part.table.Portals) == 0 {
			continue
		}
		plan, err := part.plane.Plan(part.table)
		if err != nil {
			return err
		}
		b.WriteString(plan)
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// once programs the kernel and returns. What is wrong with single services is logged and the others are in force.
func once(ctx context.Context, c config, stderr io.Writer) error {
	l, err := control.Listen(c.socket)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // nothing was served
	want, d, err := load(c)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(want.user) {
		want.problems = append(want.problems, fmt.Errorf("service %s: userspace mode needs portald to stay", want.user.Portals[key].Service))
	}
	for _, p := range want.problems {
		logger(c, stderr).Error("problem", "error", p)
	}
	want.user.Portals = nil
	return d.program(ctx, want)
}

// cleanup removes everything of both modes.
func cleanup(ctx context.Context, c config) error {
	l, err := control.Listen(c.socket)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // nothing was served
	d := &daemon{c: c, log: slog.New(slog.DiscardHandler)}
	d.wire(nil)
	return errors.Join(d.kernel.Cleanup(ctx), d.user.Cleanup(ctx))
}
