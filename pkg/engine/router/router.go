// SPDX-License-Identifier: Apache-2.0

// Package router keeps a kernel's routes and a speaker's announcements as route.Compute wants them.
package router

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/l3edge/l3edge/pkg/core/route"
)

// Speaker is where paths come from and announcements go to.
type Speaker interface {
	// Take returns every prefix that changed since the last call; no way means that the prefix is gone.
	Take() []route.Learned
	Learned() []route.Learned
	Announce([]route.Announcement) error
	// Synced reports that all peers are there and have told everything they know.
	Synced() bool
	// Reachable says which addresses connected links lead to, whenever that may have changed.
	Reachable(func(netip.Addr) bool)
}

// Kernel is where routes go to. Read returns only ours.
type Kernel interface {
	Read() (route.FIB, error)
	Apply(route.Plan) ([]route.Failure, error)
	Topology() (route.Topology, error)
	// Lose takes a gateway that has gone out of every entry that has another one, and returns what became of what.
	Lose(gateway route.NextHop) ([]route.Moved, error)
}

// Options are what a Router works with.
type Options struct {
	Speaker Speaker
	Kernel  Kernel
	Policy  route.Policy
	Intents []route.Intent
	Log     *slog.Logger
	// SweepAfter bounds how long routes that an earlier process left are kept when not all peers become synced.
	SweepAfter time.Duration
	// Wake asks for a round at a later time; nil: nobody is asked, and what was put off waits for the next round.
	Wake func(time.Duration)
}

// Router is the state between two rounds. Sync must not overlap with itself; everything else may be called from anywhere.
type Router struct {
	o       Options
	started time.Time

	newsMu sync.Mutex // guards news, o.Policy and o.Intents
	news   news

	mu       sync.Mutex // guards what follows against Status
	topo     route.Topology
	resolver *route.Resolver // of topo
	lost     map[netip.Addr]time.Time
	damper   route.Damper
	read     time.Time // when the kernel was last read
	actual   route.FIB
	desired  route.FIB
	stale    map[netip.Prefix]bool // left by an earlier process and not learned again yet
	swept    bool
	refused  map[netip.Prefix][]route.Refused
	waits    map[netip.Prefix]bool // those of refused that a link to come may change
	failed   map[netip.Prefix]*failure
	pause    time.Duration // before what failed is tried again
	retry    time.Time
	taken    []netip.Prefix // routes that others removed and nobody was told of yet
	told     time.Time      // when the last of these were
	rounds   Rounds
	// programmed counts changes that the kernel has taken.
	programmed uint64
	decision   route.Decision // announcements and what is held; FIB and Refused are kept by prefix above
}

// news is what was heard since the last round.
type news struct {
	since    time.Time      // when the first of it was heard; zero: nothing was
	topology bool           // links, addresses or gateways may have changed
	reread   bool           // the kernel's routes may have changed
	synced   bool           // all that the peers know is in changed or was before
	decide   bool           // policy, intents or, as look finds, what the node is connected to changed
	gone     []netip.Prefix // routes that somebody removed
	links    []int          // links whose routes may have gone
	gateways []gateway
	changed  []route.Learned
}

// trust is how long the picture of the kernel is believed, and what was decided: a round later than that reads everything
// anew, whatever was heard.
const trust = 30 * time.Second

// New returns a Router that has done nothing yet.
func New(o Options) *Router {
	r := &Router{
		o: o, started: time.Now(), lost: map[netip.Addr]time.Time{}, refused: map[netip.Prefix][]route.Refused{},
		waits: map[netip.Prefix]bool{}, failed: map[netip.Prefix]*failure{},
	}
	r.news.reread, r.news.topology = true, true
	return r
}

// TopologyChanged says that links, addresses or gateways may have changed; with routes, that routes may have gone with
// them: the kernel says nothing then.
func (r *Router) TopologyChanged(routes bool) {
	r.hear(func() { r.news.topology, r.news.reread = true, r.news.reread || routes })
}

// LinkChanged is TopologyChanged for a link that routes may have gone with. Where none of ours goes through it, as through
// that of a pod, the kernel's routes are not read again.
func (r *Router) LinkChanged(link int) {
	r.hear(func() { r.news.topology, r.news.links = true, append(r.news.links, link) })
}

// Gone says that somebody removed our route for prefix.
func (r *Router) Gone(prefix netip.Prefix) {
	r.hear(func() { r.news.gone = append(r.news.gone, prefix) })
}

// SetIntents replaces what the node would announce. The same again is no news: it is asked after with every pod's link.
func (r *Router) SetIntents(in []route.Intent) {
	r.hear(func() {
		r.news.decide = r.news.decide || !slices.Equal(r.o.Intents, in)
		r.o.Intents = in
	})
}

// SetPolicy replaces what may be learned.
func (r *Router) SetPolicy(p route.Policy) {
	r.hear(func() { r.o.Policy, r.news.decide, r.news.topology = p, true, true })
}

func (r *Router) hear(f func()) {
	r.newsMu.Lock()
	defer r.newsMu.Unlock()
	if r.news.since.IsZero() {
		r.news.since = time.Now()
	}
	f()
}

// Heard says that the speaker has changes for the next round: their latency counts from here.
func (r *Router) Heard() { r.hear(func() {}) }

// Sync does one round: it brings kernel and speaker to what is wanted now. Every so often (trust) it reads everything
// anew. Changes that the kernel refused are no error: the others took effect, and these are tried again after a while.
func (r *Router) Sync(ctx context.Context) error {
	if ctx.Err() != nil { // sessions that end with the process are no news
		return nil
	}
	r.newsMu.Lock()
	n := r.news
	r.news = news{}
	policy, intents := r.o.Policy, r.o.Intents
	r.newsMu.Unlock()

	began := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.programmed
	err := r.lose(&n)               // first: every millisecond loses packets
	n.synced = r.o.Speaker.Synced() // before Take: a table that ends in between is not swept before it is heard
	n.changed = r.o.Speaker.Take()
	if began.Sub(r.read) > trust {
		n.topology, n.reread, n.decide = true, true, true
	}
	r.damp(&n)
	if err == nil {
		err = r.look(&n, policy)
	}
	if err == nil {
		err = r.round(n, policy, intents)
	} else {
		r.desired = nil // what changed is forgotten with this round: begin from nothing
	}
	r.tellTaken()
	r.rounds.Spent += time.Since(began)
	if n.since.IsZero() {
		n.since = began
	}
	if r.programmed > before {
		r.rounds.Latency.add(time.Since(n.since))
	}
	if err != nil {
		r.rounds.Failed++
		r.hear(func() { r.news.since, r.news.topology, r.news.reread, r.news.decide = n.since, true, true, true }) // the next time
		return err
	}
	r.rounds.OK++
	return nil
}

func (r *Router) round(n news, pol route.Policy, intents []route.Intent) error {
	if n.decide {
		r.decideAll(pol, intents, n.changed)
	} else {
		r.decideSome(pol, n.changed)
	}
	var plan route.Plan
	if swept := r.sweep(n.synced); swept || n.decide || n.reread {
		plan = route.Diff(r.wanted(), r.actual)
	} else {
		plan = r.planFor(n)
	}
	failures, err := r.o.Kernel.Apply(plan)
	if err != nil {
		return err
	}
	r.done(plan, failures)
	r.remember(plan, failures)
	if n.decide {
		return r.o.Speaker.Announce(r.decision.Announce)
	}
	return nil
}

// look takes over what was heard, and reads what the kernel holds and is connected to.
func (r *Router) look(n *news, pol route.Policy) (err error) {
	had := entries(r.actual, n.gone)
	n.reread = n.reread || r.actual == nil || uses(r.actual, n.links)
	if n.reread {
		first := r.actual == nil
		r.read = time.Now()
		if r.actual, err = r.o.Kernel.Read(); err != nil {
			return err
		}
		if first {
			r.stale = map[netip.Prefix]bool{}
			for p := range r.actual {
				r.stale[p] = true
			}
		}
	}
	if n.topology {
		if err := r.lookAround(n, pol.Own); err != nil {
			return err
		}
	}
	r.taken = append(r.taken, r.byOthers(had, n.links)...)
	for _, p := range n.gone {
		delete(r.actual, p)
	}
	for _, l := range n.changed { // a peer has spoken about it: learned again, or withdrawn
		delete(r.stale, l.Prefix)
	}
	return nil
}

// uses reports that a route goes through one of the links.
func uses(table route.FIB, links []int) bool {
	if len(links) == 0 {
		return false
	}
	for _, e := range table {
		if slices.ContainsFunc(e.Hops, func(h route.NextHop) bool { return slices.Contains(links, h.Link) }) {
			return true
		}
	}
	return false
}

// lookAround reads what the node is connected to. Only a change of it is a reason to decide anew: a pod's link comes
// and goes more often than any that routes go through.
func (r *Router) lookAround(n *news, own []netip.Prefix) error {
	topo, err := r.o.Kernel.Topology()
	if err != nil {
		return err
	}
	topo = withoutPods(topo, own)
	topo.Lost = slices.SortedFunc(maps.Keys(r.lost), netip.Addr.Compare)
	if r.resolver != nil && topo.Equal(r.topo) {
		return nil
	}
	n.decide = n.decide || r.resolver == nil || !topo.Extends(r.less(topo)) || len(r.waits) > 0
	r.topo, r.resolver = topo, route.NewResolver(topo)
	r.o.Speaker.Reachable(topo.Reaches)
	return nil
}

// withoutPods leaves out that single pods are connected, each by a link of its own: no next hop is one of them.
func withoutPods(t route.Topology, own []netip.Prefix) route.Topology {
	t.OnLink = slices.DeleteFunc(slices.Clone(t.OnLink), func(l route.OnLink) bool {
		return l.Prefix.IsSingleIP() && slices.ContainsFunc(own, func(o netip.Prefix) bool { return o.Contains(l.Prefix.Addr()) })
	})
	t.Self = slices.Clone(t.Self) // the gateway's address may be on each of these links
	slices.SortFunc(t.Self, netip.Addr.Compare)
	t.Self = slices.Compact(t.Self)
	return t
}

// less is what the node was connected to without the links that are gone and that nothing goes through.
func (r *Router) less(now route.Topology) route.Topology {
	var gone []int
	for name, index := range r.topo.Links {
		if _, there := now.Links[name]; !there {
			gone = append(gone, index)
		}
	}
	old := r.topo
	if len(gone) > 0 && !uses(r.desired, gone) {
		old.Links = maps.Clone(old.Links)
		maps.DeleteFunc(old.Links, func(_ string, index int) bool { return slices.Contains(gone, index) })
	}
	return old
}

// done takes over what the kernel took, and tells of it.
func (r *Router) done(plan route.Plan, failures []route.Failure) {
	refused := map[netip.Prefix]bool{}
	for _, f := range failures {
		refused[f.Change.Prefix] = true
	}
	added, replaced, removed := 0, 0, 0
	for _, c := range plan {
		if refused[c.Prefix] {
			continue
		}
		r.programmed++
		switch c.Op {
		case route.Remove:
			delete(r.actual, c.Prefix)
			removed++
		case route.Add:
			r.actual[c.Prefix] = c.New
			added++
		case route.Replace:
			r.actual[c.Prefix] = c.New
			replaced++
		}
		if len(plan) <= some {
			r.o.Log.Info("route changed", "change", c.String())
		}
	}
	if len(plan) > some {
		r.o.Log.Info("routes changed", "added", added, "replaced", replaced, "removed", removed, "total", len(r.actual))
	}
}

// Flush removes every route of ours from the kernel: a router that stops for good does not leave routes that nobody tends.
func (r *Router) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, err := r.o.Kernel.Read()
	if err != nil {
		return err
	}
	failures, err := r.o.Kernel.Apply(route.Diff(nil, have))
	for _, f := range failures {
		err = errors.Join(err, f)
	}
	return err
}
