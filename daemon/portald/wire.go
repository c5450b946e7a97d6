// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/version"
	"github.com/l3edge/l3edge/pkg/edge/conntrack"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/edge/file"
	"github.com/l3edge/l3edge/pkg/edge/ipt"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/engine/loop"
	"github.com/l3edge/l3edge/pkg/engine/portals"
	"github.com/l3edge/l3edge/pkg/engine/proxy"
	"github.com/l3edge/l3edge/pkg/engine/task"
)

// wiring is everything that portald is made of. Nothing is touched before it runs.
type wiring struct {
	c      config
	log    *slog.Logger
	keeper *portals.Keeper
	beacon *portals.Beacon
	kernel *nftables
	user   *userspace
	loaded chan struct{} // closed when everything is in force for the first time
}

func wire(c config, log *slog.Logger, n node.Node, m *manager) *wiring {
	ports := portsFile{path: c.portsFile}
	known, err := ports.load()
	if err != nil {
		log.Warn("proxy ports are forgotten", "error", err)
	}
	limit, err := maxConns()
	if err != nil {
		log.Warn("connections are not limited", "error", err)
	}
	po := proxy.Options{Log: log, Ports: known, Drain: c.drain, MaxConns: limit}
	o := portals.Options{Mode: c.mode, Nets: c.firstNets(), NodePorts: c.nodePorts, Localhost: c.localhost, Node: n, Log: log}
	w := &wiring{c: c, log: log, kernel: &nftables{localhost: c.localhost}, loaded: make(chan struct{})}
	o.Settled = func() error {
		close(w.loaded)
		if m == nil {
			return nil
		}
		return m.settle()
	}
	if m != nil {
		po.Keeper = m
	}
	w.user = &userspace{proxy: proxy.New(po), file: ports, families: map[bool]*ipt.Family{}, begun: make(chan struct{})}
	o.Kernel, o.Proxy = w.kernel, w.user
	o.Prepare = func(n node.Node, nets []netip.Prefix) error {
		if err := checkNets(nets, n); err != nil {
			return err
		}
		return ensureReachable(log, nets, n)
	}
	w.beacon = portals.NewBeacon(func() error { return w.keeper.Healthy() })
	o.HealthPorts = w.beacon.Apply
	o.Flows = forgetFlows
	w.keeper = portals.New(o)
	w.user.node = w.keeper.Node
	return w
}

// forgetFlows is portals.Options.Flows by way of conntrack.
func forgetFlows(p service.Protocol, few []portals.Led, stale func(portals.Led) bool) error {
	var each []conntrack.Match
	for _, l := range few {
		each = append(each, conntrack.Match{Protocol: p, To: l.To, By: l.By})
	}
	return conntrack.ForgetServices(p, each, func(f conntrack.Flow) bool { return stale(portals.Led{To: f.To, By: f.By}) })
}

// claim comes first of all: nothing is touched while another portald runs on this node, whatever socket that one has.
func claim(socket string) (l net.Listener, release func(), err error) {
	lock, err := control.LockNamespace(mark.RunDir, "portald")
	if err != nil {
		return nil, nil, err
	}
	if l, err = control.Listen(socket); err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return l, func() { _ = lock.Close() }, nil
}

// serve is the daemon: it runs until ctx ends. In nftables mode the kernel goes on answering afterwards; in userspace
// mode the rules stay too, as the ports do, and clients wait or are refused until portald is back.
func serve(ctx context.Context, c config, stderr io.Writer) error {
	collect(200) // to start is to make much that stays: do not look for garbage in it again and again
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: c.level}))
	l, release, err := claim(c.socket)
	if err != nil {
		return err
	}
	defer release()
	w, m, err := prepare(c, log)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	tasks, err := w.tasks(l)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if c.metrics != "" {
		ml, err := net.Listen("tcp", c.metrics)
		if err != nil {
			return errors.Join(fmt.Errorf("--metrics: %w", err), l.Close())
		}
		tasks = append(tasks, task.Task{Name: "metrics", Run: func(ctx context.Context) error { return serveTCP(ctx, ml, metricsHandler(w.keeper)) }})
	}
	log.Info("portald started", "version", version.Version, "mode", c.mode, "services", c.source(), "portalNet", c.portalNet())
	defer log.Info("portald stopped")
	defer context.AfterFunc(ctx, func() { _ = m.store.Stopping() })() // only a courtesy
	return task.Run(ctx, log, tasks...)
}

// prepare reads the node and refuses what cannot work on it.
func prepare(c config, log *slog.Logger) (*wiring, *manager, error) {
	n, missing, err := readNode(c.nodeFile)
	if err == nil {
		err = checkNets(c.firstNets(), n)
	}
	if err != nil {
		return nil, nil, err
	}
	if missing {
		log.Warn("no node file yet: pod subnets are unknown", "file", c.nodeFile)
	}
	m, err := openManager()
	if err != nil {
		log.Warn("sockets are not kept over a restart", "error", err)
	}
	return wire(c, log, n, m), m, nil
}

func (w *wiring) tasks(l net.Listener) ([]task.Task, error) {
	sync := loop.New(loop.Options{Name: "portals", Sync: w.keeper.Sync, Log: w.log, Resync: w.c.resync})
	doubt := func() {
		w.keeper.Doubt()
		sync.Trigger()
	}
	sources, err := w.follow(sync.Trigger)
	if err != nil {
		return nil, err
	}
	return append(sources, []task.Task{
		{Name: "proxy", Run: w.user.proxy.Run},
		{Name: "health ports", Run: w.beacon.Run},
		{Name: "sync", Run: sync.Run},
		{Name: "room", Run: func(ctx context.Context) error { return watchRoom(ctx, w.log) }},
		{Name: "tampering", Run: func(ctx context.Context) error {
			return w.kernel.watch(ctx, w.log, w.loaded, doubt, func() {
				w.keeper.Distrust()
				sync.Trigger()
			})
		}},
		{Name: "tampering with chains", Run: func(ctx context.Context) error {
			return w.user.watch(ctx, w.log, doubt)
		}},
		{Name: "tampering with legacy chains", Run: func(ctx context.Context) error { return w.user.feel(ctx, doubt) }},
		{Name: "node file", Run: func(ctx context.Context) error { return w.watchNode(ctx, sync.Trigger) }},
		{Name: "memory", Run: w.tidy},
		{Name: "control", Run: func(ctx context.Context) error { return control.Serve(ctx, l, controlHandler(w.keeper)) }},
	}...), nil
}

// tidy gives back the memory that reading everything took and that following changes does not need.
func (w *wiring) tidy(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-w.loaded:
	}
	select {
	case <-ctx.Done():
	case <-time.After(2 * time.Second): // the manifests are being remembered
		debug.FreeOSMemory()
		collect(garbage())
	}
	return nil
}

// garbage is how much may pile up: services live long and changes are small, so half of what is alive, but a few connections
// of the proxy should not make anybody look for it.
func garbage() (percent int) {
	const floor = 16 << 20
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return min(max(50, int(100*floor/max(m.HeapAlloc, 1))), 400) //nolint:gosec // bounded
}

// collect sets how much garbage may pile up, in percent of what is alive, unless the operator has.
func collect(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// watchNode follows the node file. It asks for it now and then: it changes perhaps once in a node's life.
func (w *wiring) watchNode(ctx context.Context, changed func()) error {
	t := time.NewTicker(2 * time.Second)
	defer t.Stop()
	said, look := "", nodeNews{path: w.c.nodeFile}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		news, err := look.ask()
		var n node.Node
		if err == nil && news {
			n, _, err = readNode(w.c.nodeFile)
		}
		if err != nil {
			if err.Error() != said {
				w.log.Error("cannot read the node file, keeping what it said", "error", err)
			}
			said, look = err.Error(), nodeNews{path: w.c.nodeFile}
			continue
		}
		said = ""
		if news && w.keeper.SetNode(n) {
			w.log.Info("the node changed", "file", w.c.nodeFile, "podSubnets", fmt.Sprint(n.PodSubnets), "addresses", fmt.Sprint(n.Addresses))
			changed()
		}
	}
}

// load reads and decides everything once, for the commands that do not stay.
func load(c config) (portals.Desired, *wiring, error) {
	n, _, err := readNode(c.nodeFile)
	if err == nil {
		err = checkNets(c.nets, n)
	}
	if err != nil {
		return portals.Desired{}, nil, err
	}
	s, source := file.Load(c.services)
	if errors.Is(source, fs.ErrNotExist) { // a wrong path is not a wish for no services
		return portals.Desired{}, nil, source
	}
	want := portals.Decide(s, portal.Options{Node: n, Nets: c.nets, Zone: n.Zone, NodePortAddrs: portal.NodePortAddrs(n, c.nodePorts), Localhost: c.localhost}, c.mode)
	if source != nil {
		want.Problems = append(want.Problems, source)
	}
	return want, wire(c, slog.New(slog.DiscardHandler), n, nil), nil
}

// dryRun prints the portals and the rules that they need.
func dryRun(c config, out io.Writer) error {
	want, w, err := load(c)
	if err != nil {
		return err
	}
	var b strings.Builder
	all := maps.Collect(want.Portals())
	for _, key := range portals.Sorted(all) {
		fmt.Fprintf(&b, "# %s %s -> %v\n", all[key].Service, key, all[key].Endpoints)
	}
	for _, p := range want.Problems {
		fmt.Fprintf(&b, "# problem: %s\n", strings.ReplaceAll(p.Error(), "\n", "\n# problem: "))
	}
	for _, part := range []struct {
		mode  portals.Mode
		table portal.Table
		plan  func(portal.Table) (string, error)
	}{{portals.NFTables, want.Kernel, w.kernel.Plan}, {portals.Userspace, want.User, w.user.Plan}} {
		if c.mode != part.mode && len(part.table.Portals) == 0 && part.mode == portals.Userspace {
			continue // the kernel has something to refuse in either mode
		}
		plan, err := part.plan(part.table)
		if err != nil {
			return err
		}
		b.WriteString(plan)
	}
	_, err = io.WriteString(out, b.String())
	return err
}

// once programs the kernel and returns. What is wrong with single services is told and the others are in force.
func once(ctx context.Context, c config, stderr io.Writer) error {
	l, release, err := claim(c.socket)
	if err != nil {
		return err
	}
	defer release()
	defer l.Close() //nolint:errcheck // nothing was served
	want, w, err := load(c)
	if err != nil {
		return err
	}
	for _, key := range portals.Sorted(want.User.Portals) {
		want.Problems = append(want.Problems, fmt.Errorf("%s of %s: userspace mode needs portald to stay", key, want.User.Portals[key].Service))
	}
	for _, p := range want.Problems {
		fmt.Fprintln(stderr, "portald: problem:", p) //nolint:errcheck // there is nobody else to tell
	}
	want.User.Portals = nil
	if err := ensureReachable(w.log, c.nets, w.keeper.Node()); err != nil {
		return err
	}
	return w.keeper.Program(ctx, want)
}

// cleanup removes everything of both modes.
func cleanup(ctx context.Context, c config) error {
	l, release, err := claim(c.socket)
	if err != nil {
		return err
	}
	defer release()
	defer l.Close() //nolint:errcheck // nothing was served
	w := wire(c, slog.New(slog.DiscardHandler), node.Node{}, nil)
	return errors.Join(w.kernel.Cleanup(ctx), w.user.Cleanup(ctx), link.RemoveRoutes(mark.RoutePortald))
}

func join[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, one := range list {
		words[i] = one.String()
	}
	return strings.Join(words, ",")
}
