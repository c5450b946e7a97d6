// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
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
	if missing {
		log.Warn("no node file yet: pod subnets are unknown", "file", c.nodeFile)
	}
	d := &daemon{c: c, log: log, node: n, version: version.Version}
	tasks := d.wire()
	sync := loop.New(loop.Options{Name: "portals", Sync: d.sync, Log: log, Resync: c.resync})
	log.Info("portald started", "version", d.version, "mode", c.mode, "services", c.services, "portalNet", join(c.nets))
	defer log.Info("portald stopped")
	return task.Run(ctx, log, append(tasks,
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

// wire gives the daemon its data plane, and returns what must run for it.
func (d *daemon) wire() []task.Task {
	user := &userspace{file: portsFile{path: d.c.portsFile}, node: d.nodeNow, families: map[bool]*family{}}
	kernel := newNFTables(d.log)
	if d.c.mode == modeNFTables {
		d.plane, d.other = kernel, user.Cleanup
		return nil
	}
	ports, err := user.file.load()
	if err != nil {
		d.log.Warn("proxy ports are forgotten", "error", err)
	}
	user.proxy = proxy.New(proxy.Options{Log: d.log, Ports: ports, Drain: d.c.drain})
	d.plane, d.other, d.traffic = user, kernel.Cleanup, user.proxy.Stats
	d.proxied = func() map[portal.Key]uint16 { return user.ports }
	return []task.Task{{Name: "proxy", Run: user.proxy.Run}}
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

// load reads everything once, for the commands that do not stay. The error joins all that is wrong.
func load(c config) (portal.Table, []error, *daemon, error) {
	n, _, err := checkNode(c)
	if err != nil {
		return portal.Table{}, nil, nil, err
	}
	d := &daemon{c: c, log: slog.New(slog.DiscardHandler), node: n}
	d.wire()
	s, source := file.Load(c.services)
	admitted, skipped := admit(s, c.nets)
	return compute(admitted, n, c.nets), append(flatten(source), skipped...), d, nil
}

// dryRun prints the portals and what the kernel lacks.
func dryRun(_ context.Context, c config, out io.Writer) error {
	t, problems, d, err := load(c)
	if err != nil {
		return err
	}
	plan, err := d.plane.Plan(t)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, key := range sortedKeys(t) {
		fmt.Fprintf(&b, "# %s %s -> %v\n", t.Portals[key].Service, key, t.Portals[key].Endpoints)
	}
	for _, p := range problems {
		fmt.Fprintln(&b, "# problem:", p)
	}
	b.WriteString(plan)
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
	t, problems, d, err := load(c)
	if err != nil {
		return err
	}
	for _, p := range problems {
		logger(c, stderr).Error("service not in force", "error", p)
	}
	if err := d.plane.Apply(ctx, t); err != nil {
		return err
	}
	return d.other(ctx)
}

// cleanup removes everything of both modes.
func cleanup(ctx context.Context, c config) error {
	l, err := control.Listen(c.socket)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // nothing was served
	d := &daemon{c: c, log: slog.New(slog.DiscardHandler)}
	d.wire()
	if err := d.plane.Cleanup(ctx); err != nil {
		return err
	}
	return d.other(ctx)
}
