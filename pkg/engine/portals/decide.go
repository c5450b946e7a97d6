// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Mode is a way to answer a portal.
type Mode string

// The two ways.
const (
	NFTables  Mode = "nftables"  // the kernel translates addresses: one connection, the endpoint sees the client
	Userspace Mode = "userspace" // the article's way: a rule leads to a proxy, which opens a second connection
)

// Desired is what a node should answer, and how. A Keeper's changes with its next Sync.
type Desired struct {
	Kernel, User portal.Table // by who answers
	Tuning       map[service.Name]tuning.Settings
	Services     int
	Problems     []error // what cannot be in force, and why
}

// Portals lists everything that is answered.
func (d *Desired) Portals() iter.Seq2[portal.Key, portal.Portal] {
	return func(yield func(portal.Key, portal.Portal) bool) {
		for _, part := range []map[portal.Key]portal.Portal{d.Kernel.Portals, d.User.Portals} {
			for k, p := range part {
				if !yield(k, p) {
					return
				}
			}
		}
	}
}

// Decide says what a node should answer to a snapshot.
func Decide(s service.Snapshot, o portal.Options, mode Mode) Desired {
	d := newDecider(o, mode)
	d.update(s.Delta())
	return d.want()
}

// decider follows the services of one node: it decides what becomes of those that change and leaves the others alone.
type decider struct {
	mode         Mode
	blind        bool // the node's pods are unknown
	outward      int  // how many portals that makes a difference to
	memo         *portal.Memo
	table        portal.Table // the memo's
	kernel, user portal.Table
	tuning       map[service.Name]tuning.Settings
	wrong        map[service.Name][]error // of its annotations
	stray        map[portal.Key]error     // what nobody can answer
	health       beacons
	before       map[portal.Key]answer // what is in force, where that is not what is wanted
	denied       portal.NotProgrammed  // what is wanted and was refused
}

// answer is a portal and who answers it; nobody: it is not answered.
type answer struct {
	portal.Portal
	by Mode
}

const nobody Mode = ""

func newDecider(o portal.Options, mode Mode) *decider {
	d := &decider{
		mode: mode, blind: len(o.Node.PodSubnets) == 0, memo: portal.NewMemo(o), tuning: map[service.Name]tuning.Settings{}, wrong: map[service.Name][]error{},
		stray: map[portal.Key]error{}, health: newBeacons(o.Node.Name), before: map[portal.Key]answer{},
	}
	d.table = d.memo.Update(nil)
	d.kernel = d.table.Part(map[portal.Key]portal.Portal{}, nil)
	d.user = d.table.Part(map[portal.Key]portal.Portal{}, nil)
	return d
}

// moved is the decider for a node that has changed, with the same services.
func (d *decider) moved(o portal.Options) *decider {
	n := newDecider(o, d.mode)
	n.update(d.memo.All())
	for key := range n.before {
		n.before[key] = d.inForce(key)
	}
	for _, t := range []portal.Table{d.kernel, d.user} {
		for key := range t.Portals {
			n.before[key] = d.inForce(key)
		}
	}
	for key, a := range d.before {
		n.before[key] = a
	}
	return n
}

// update takes in what has changed.
func (d *decider) update(delta service.Delta) {
	for name, st := range delta {
		d.tune(name, st)
		d.health.update(name, st)
	}
	t := d.memo.Update(delta)
	if t.Same(d.table) {
		return
	}
	changed, _ := t.Since(d.table)
	var kernel, user []portal.Change
	for _, c := range changed {
		d.outward += outward(c.Now) - outward(c.Was)
		was := d.answered(c.Key)
		if _, noted := d.before[c.Key]; !noted {
			d.before[c.Key] = was
		}
		now := d.place(c.Key, c.Now)
		kernel = appendChange(kernel, NFTables, c, was.by, now)
		user = appendChange(user, Userspace, c, was.by, now)
	}
	d.table, d.kernel, d.user = t, t.Part(d.kernel.Portals, kernel), t.Part(d.user.Portals, user)
}

// outward is 1 for a portal at which it matters who is on this node.
func outward(p *portal.Portal) int {
	if p == nil || p.Kind == portal.ClusterIP {
		return 0
	}
	return 1
}

// errBlind is told while outsiders are served without knowing who is one.
var errBlind = errors.New("the node's pod subnets are unknown (--node-file): at NodePorts, load balancers' and external addresses " +
	"its pods count as clients elsewhere, and what is not of policy Local meets endpoints with the node's address as source")

// appendChange appends what a change means to one of the data planes, if it concerns it.
func appendChange(cs []portal.Change, plane Mode, c portal.Change, was, now Mode) []portal.Change {
	if was != plane {
		c.Was = nil
	}
	if now != plane {
		c.Now = nil
	}
	if c.Was == nil && c.Now == nil {
		return cs
	}
	return append(cs, c)
}

// answered is what is wanted for a key.
func (d *decider) answered(key portal.Key) answer {
	if p, ok := d.kernel.Portals[key]; ok {
		return answer{p, NFTables}
	}
	if p, ok := d.user.Portals[key]; ok {
		return answer{p, Userspace}
	}
	return answer{}
}

// inForce is what is known to be in force for a key.
func (d *decider) inForce(key portal.Key) answer {
	if a, ok := d.before[key]; ok {
		return a
	}
	return d.answered(key)
}

// settled notes that what is wanted is in force.
func (d *decider) settled() { d.before = map[portal.Key]answer{} }

// place gives a portal to the data plane that its service or else the node asks for.
func (d *decider) place(key portal.Key, p *portal.Portal) Mode {
	delete(d.kernel.Portals, key)
	delete(d.user.Portals, key)
	delete(d.stray, key)
	if p == nil {
		return nobody
	}
	carried := key.Protocol == service.TCP || key.Protocol == service.UDP
	switch by := cmp.Or(Mode(d.tuning[p.Service.Name].Mode), d.mode); {
	case by == NFTables:
		d.kernel.Portals[key] = *p
		return NFTables
	case carried:
		d.user.Portals[key] = *p
		return Userspace
	}
	d.stray[key] = fmt.Errorf("%s of %s: userspace mode cannot carry it", key, p.Service)
	return nobody
}

// tune reads what a service wishes.
func (d *decider) tune(name service.Name, st *service.State) {
	delete(d.tuning, name)
	delete(d.wrong, name)
	if st == nil {
		return
	}
	for i := range st.Service.Ports {
		for _, e := range st.Of(i) {
			if portal.LeadsToItself(&st.Service, e) {
				d.wrong[name] = append(d.wrong[name], fmt.Errorf("service %s: its endpoint %s is its own cluster address; not used", name, e.Addr))
			}
		}
	}
	if len(st.Service.Annotations) == 0 {
		return
	}
	tune, err := tuning.Parse(st.Service.Annotations)
	for _, e := range flatten(err) {
		d.wrong[name] = append(d.wrong[name], fmt.Errorf("service %s: %w", name, e))
	}
	if tune != tuning.Default() {
		d.tuning[name] = tune
	}
}

// want is what should be in force now.
func (d *decider) want() Desired {
	w := Desired{Kernel: d.kernel, User: d.user, Tuning: d.tuning, Services: d.memo.Services()}
	w.Problems = refusals(d.table.Refused)
	if d.blind && d.outward > 0 {
		w.Problems = append(w.Problems, errBlind)
	}
	for _, errs := range d.wrong {
		w.Problems = append(w.Problems, errs...)
	}
	for err := range maps.Values(d.stray) {
		w.Problems = append(w.Problems, err)
	}
	return w
}

// options are what is decided by. The caller holds mu.
func (k *Keeper) options() portal.Options {
	return portal.Options{Node: k.node, Nets: k.nets, Zone: k.node.Zone, NodePortAddrs: portal.NodePortAddrs(k.node, k.o.NodePorts), Localhost: k.o.Localhost}
}

// perService is how many of a service's refused claims are told one by one.
const perService = 5

// refusals tells what a table refuses, which is sorted by service.
func refusals(all []portal.Refusal) []error {
	var out []error
	for len(all) > 0 {
		name := all[0].Service.Name
		n := slices.IndexFunc(all, func(r portal.Refusal) bool { return r.Service.Name != name })
		if n < 0 {
			n = len(all)
		}
		for _, r := range all[:min(n, perService)] {
			out = append(out, errors.New(r.String()))
		}
		if n > perService {
			out = append(out, fmt.Errorf("service %s: %d more of its ports are refused", name, n-perService))
		}
		all = all[n:]
	}
	return out
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
