// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/edge/fib"
	"github.com/l3edge/l3edge/pkg/edge/ra"
	"github.com/l3edge/l3edge/pkg/edge/systemd"
	"github.com/l3edge/l3edge/pkg/engine/loop"
	"github.com/l3edge/l3edge/pkg/engine/router"
	"github.com/l3edge/l3edge/pkg/engine/task"
)

// daemon runs until a signal ends it, with a stop (sessions are closed, routes withdrawn and removed) or with a hand-over.
func daemon(ctx context.Context, f *flags, cfg config, log *slog.Logger) error {
	thrift()
	sigs := listenForSignals()
	defer sigs.stop()
	table, err := fib.Open()
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }()
	if len(cfg.listen) > 0 { // a switch: flows towards service addresses should stay where they are
		table.Steady()
	}
	watch, err := table.Watch()
	if err != nil {
		return err
	}
	socket, release, err := claim(cfg.socket)
	if errors.Is(err, control.ErrInUse) {
		return fmt.Errorf("routed is running already: %w", err)
	} else if err != nil {
		return err
	}
	defer release()
	forward(cfg, log)
	d := &wiring{signals: sigs, up: map[string]bool{}, flags: f, log: log, table: table, state: newState(cfg), isKnown: make(chan struct{}), clusterNews: make(chan struct{}, 1)}
	follow, err := d.cluster(cfg)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	d.conf.Store(&cfg)
	ctx, d.stop = context.WithCancel(ctx)
	defer d.stop()
	d.tellManager(systemd.Ready, systemd.Status("starting"))
	return d.together(ctx, append(follow,
		task.Task{Name: "signals", Run: d.awaitEnd},
		task.Task{Name: "watchdog", Run: d.watchdog},
		task.Task{Name: "control", Run: func(ctx context.Context) error { return serve(ctx, socket, d) }},
		task.Task{Name: "metrics", Run: d.serveMetrics},
		task.Task{Name: "configuration", Run: d.followConfig},
		task.Task{Name: "routing", Run: func(ctx context.Context) error { return d.run(ctx, watch) }},
	)...)
}

// claim comes before anything is touched: of two routed in one network namespace each would take the other's routes for
// left over, whatever sockets they have.
func claim(socket string) (l net.Listener, release func(), err error) {
	lock, err := control.LockNamespace(mark.RunDir, "routed")
	if err != nil {
		return nil, nil, err
	}
	if l, err = control.Listen(socket); err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return l, func() { _ = lock.Close() }, nil
}

// together runs tasks side by side. A failure ends them all; main tells of it, once. It is no wish to leave the fabric: peers
// and kernel keep everything for the next process.
func (d *wiring) together(ctx context.Context, tasks ...task.Task) error {
	for i, t := range tasks {
		tasks[i].Run = func(ctx context.Context) error {
			err := t.Run(ctx)
			if err != nil && !d.leaving.Load() {
				d.handOver()
			}
			return err
		}
	}
	return task.Run(ctx, slog.New(slog.DiscardHandler), tasks...)
}

// wiring is what the parts are made of.
type wiring struct {
	flags *flags // to read the configuration again
	conf  atomic.Pointer[config]
	// reloads keeps one reload from overlapping with another, or with the parts being made.
	reloads sync.Mutex
	log     *slog.Logger
	table   *fib.Table
	state   *state
	stop    context.CancelFunc // ends everything
	signals signals
	// leaving says that somebody asked us to leave the fabric; handedOver, that peers and kernel keep everything after the end.
	leaving, handedOver atomic.Bool
	id                  identity
	vips                vips
	uplinks             uplinks
	recalled            bool // what vips holds of portald is an earlier process's

	known       sync.Once
	isKnown     chan struct{} // closed when the cluster has said who this node is
	clusterNews chan struct{} // a session came or went

	sessions *sessionLog
	wake     *time.Timer // with wakeAt, the rounds' own
	wakeAt   time.Time
	up       map[string]bool // the peers whose sessions stand; tellSession's own
	speaker  *bgp.Speaker
	router   *router.Router
	loop     *loop.Loop
}

// run routes until ctx ends. Whoever was asked to leave leaves no route behind, not even an earlier process's.
func (d *wiring) run(ctx context.Context, watch *fib.Watch) error {
	err := d.routing(ctx, watch)
	if !d.leaving.Load() {
		return err
	}
	err = errors.Join(err, router.New(router.Options{Kernel: d.table, Log: d.log}).Flush(), forget(d.portalsFile()), forget(identityFile(*d.conf.Load())))
	if err == nil {
		d.log.Info("stopped: sessions closed, routes removed")
	}
	return err
}

// routing finds out who this node is, and then runs the speaker, the kernel's routes and the watch on it side by side.
func (d *wiring) routing(ctx context.Context, watch *fib.Watch) error {
	if !d.awaitMember(ctx) {
		return watch.Close()
	}
	d.publish()
	id, ok := d.identify(ctx)
	if !ok {
		return watch.Close()
	}
	d.id = id
	d.reloads.Lock() // one between here and there would be lost
	err := d.assemble(id)
	d.reloads.Unlock()
	if err != nil {
		return err
	}
	d.publish()
	return d.together(ctx,
		task.Task{Name: "speaker", Run: d.speaker.Run},
		task.Task{Name: "routes", Run: d.keepRoutes},
		task.Task{Name: "watch", Run: func(ctx context.Context) error {
			return watch.Run(ctx, func(e fib.Event) { d.heard(e) })
		}},
		task.Task{Name: "portals", Run: d.followPortald},
	)
}

// assemble makes the parts.
func (d *wiring) assemble(id identity) error {
	conf := d.conf.Load()
	left, err := d.table.Read()
	if err != nil {
		return err
	}
	cfg := bgp.Config{
		ASN: id.asn, RouterID: id.routerID, Port: conf.port, LocalAddress: conf.local, Peers: conf.peers,
		Listen: conf.listen, ListenAs: conf.listenAs, Hold: conf.hold, RestartTime: conf.restart, Restarting: len(left) > 0,
		Collectors: conf.collectors, Neighbor: ra.Neighbor,
	}
	cfg.IPv4, cfg.IPv6 = conf.families()
	d.firstUplink(id)
	d.recall()
	if cfg.Restarting {
		d.recallPortals()
	}
	sweep := or(conf.restart, 120*time.Second)
	if conf.transit {
		cfg.Transit = conf.accept
	}
	if len(conf.peers) == 0 {
		sweep = min(sweep, 30*time.Second) // whoever is still there has connected again by then
	}
	d.sessions = newSessionLog(d.log)
	d.speaker = bgp.New(cfg, d.log, d.tellSession)
	d.router = router.New(router.Options{
		Speaker: d.speaker, Kernel: d.table, Log: d.log, SweepAfter: sweep, Intents: d.intents(), Policy: policy(*conf),
		Wake: d.wakeIn,
	})
	d.loop = loop.New(loop.Options{Name: "routes", Sync: d.router.Sync, Log: d.log, Resync: time.Minute})
	d.tellNextHops()
	d.withhold(*conf)
	d.state.running(id, d.speaker, d.router, &d.vips)
	d.because("routed has been stopped")
	if d.handedOver.Load() {
		d.speaker.HandOver()
	}
	d.tellManager(systemd.Status("running"))
	d.log.Info("started", "node", conf.node, "asn", id.asn, "routerID", id.routerID, "podSubnets", conf.podSubnets, "left", len(left))
	return nil
}

// tellNextHops says where peers can send IPv6 to.
func (d *wiring) tellNextHops() {
	hops, err := nextHops()
	if err == nil {
		err = d.speaker.NextHops(hops)
	}
	if err != nil {
		d.log.Warn("next hops not up to date", "problem", err)
	}
}

func or(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// keepRoutes starts once the speaker can be told what to announce.
func (d *wiring) keepRoutes(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.speaker.Started():
	}
	return d.together(ctx,
		task.Task{Name: "loop", Run: d.loop.Run},
		task.Task{Name: "changes", Run: d.followSpeaker},
	)
}

// breath is the pause between rounds while a peer tells a whole table: a single change is not delayed by it, and 100,000
// routes do not make 10,000 rounds.
const breath = 5 * time.Millisecond

func (d *wiring) followSpeaker(ctx context.Context) error {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.speaker.Changed():
			d.router.Heard()
			d.loop.Trigger()
		}
		rest.Reset(breath)
		select {
		case <-ctx.Done():
			return nil
		case <-rest.C:
		}
	}
}

// heard takes over what others did to the kernel.
func (d *wiring) heard(e fib.Event) {
	switch {
	case e.Gone.IsValid():
		d.router.Gone(e.Gone)
	case e.Forwarding:
		d.router.SetIntents(d.intents())
	default:
		d.publish()
		d.tellNextHops()
		if e.Link != 0 {
			d.router.LinkChanged(e.Link)
		} else {
			d.router.TopologyChanged(e.Routes || e.Lost)
		}
		d.router.SetIntents(d.intents())
	}
	d.loop.Trigger()
}

func (d *wiring) tellSession(s bgp.Session) {
	d.takeOff(s)
	d.findUplink(s)
	d.sessions.tell(s)
	select {
	case d.clusterNews <- struct{}{}:
	default:
	}
}

// wakeIn asks for a round after a while. Of several wishes at a time the earliest counts; the round asks again for the rest.
func (d *wiring) wakeIn(after time.Duration) {
	at := time.Now().Add(after)
	if d.wake != nil && d.wakeAt.After(time.Now()) && d.wakeAt.Before(at) {
		return
	}
	if d.wake != nil {
		d.wake.Stop()
	}
	d.wakeAt, d.wake = at, time.AfterFunc(after, d.loop.Trigger)
}

// takeOff moves traffic off a peer whose session is lost for good, sooner than BGP withdraws its paths one by one.
func (d *wiring) takeOff(s bgp.Session) {
	up := s.State == bgp.Established
	if up == d.up[s.Peer] || s.Kept || d.router == nil {
		return
	}
	d.up[s.Peer] = up
	if up {
		d.router.Find(s.Address)
	} else {
		d.router.Lose(s.Address)
	}
	d.loop.Trigger()
}

func policy(c config) route.Policy {
	return route.Policy{Accept: c.accept, Own: c.podSubnets, Default: c.defRoute}
}

// intents are what the node would announce: its pods, and the service addresses that portald answers for.
func (d *wiring) intents() []route.Intent {
	conf := d.conf.Load()
	portals, stage := d.vips.now()
	return append(podIntents(*conf, d.uplinks.list()), route.VIPs(conf.vips, portals, stage)...)
}

// dryRun prints who this node would be and what it would do to the kernel before any peer has spoken.
func dryRun(ctx context.Context, cfg config, w io.Writer) error {
	id, err := findIdentity(ctx, cfg)
	if err != nil {
		return err
	}
	table, err := fib.Open()
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }()
	have, err := table.Read()
	if err != nil {
		return err
	}
	dec := route.Compute(route.Input{Intents: podIntents(cfg, nil)})
	for p, e := range have { // what an earlier process left stays until the peers have spoken
		if _, ok := dec.FIB[p]; !ok {
			dec.FIB[p] = e
		}
	}
	fmt.Fprintf(w, "node %s, ASN %d, router ID %s\n", cfg.node, id.asn, id.routerID)
	for _, p := range cfg.peers {
		fmt.Fprintf(w, "peer %s\n", p.Name)
	}
	for _, p := range cfg.listen {
		fmt.Fprintf(w, "listen %s\n", p)
	}
	for _, a := range cfg.accept {
		fmt.Fprintf(w, "accept %s\n", a)
	}
	for _, a := range dec.Announce {
		fmt.Fprintf(w, "announce %s: %s\n", a.Prefix, a.Why)
	}
	for _, h := range dec.Held {
		fmt.Fprintf(w, "hold back %s: %s: %s\n", h.Prefix, h.Why, h.Lacks)
	}
	_, err = io.WriteString(w, route.Diff(dec.FIB, have).String())
	return err
}

// serve answers on the control socket.
func serve(ctx context.Context, l net.Listener, d *wiring) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		st, err := d.state.status(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		control.WriteJSON(w, st)
	})
	d.observe(mux)
	profiles(mux)
	mux.HandleFunc("POST /drain", d.serveDrain)
	mux.HandleFunc("POST /undrain", d.serveUndrain)
	return control.Serve(ctx, l, mux)
}
