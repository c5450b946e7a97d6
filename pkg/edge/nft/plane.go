// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/portal"
)

// DataPlane keeps the tables "l3edge" of one network namespace as a portal.Table says. It is not for concurrent use.
type DataPlane struct {
	c      *conn
	tables []*table
	gen    uint32 // of the ruleset when it was as the tables are known to be; 0: unknown
}

// New returns a data plane for the namespace of the calling thread. It changes nothing yet.
func New() (*DataPlane, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	return &DataPlane{c: c, tables: []*table{services(ip4), services(ip6)}}, nil
}

// Forget makes the next Apply read what the kernel has, as the first one did, unless nobody has changed any rule since.
func (d *DataPlane) Forget() {
	if gen, err := d.c.generation(); err == nil && gen != 0 && gen == d.gen {
		return
	}
	d.gen = 0
	for _, tab := range d.tables {
		tab.known, tab.unused = false, false
	}
}

// Close lets go of the socket. What is programmed stays.
func (d *DataPlane) Close() error { return d.c.close() }

// Apply makes the kernel answer as t says, in one transaction (in an order that keeps every service whole if it is too
// large for one). If the kernel refuses it because of some services, the others are programmed and the error is a
// portal.NotProgrammed, each time until those services change. The first Apply reads what the kernel has and changes only what is not right. After an error the next
// Apply reads again, whatever state the kernel was left in.
func (d *DataPlane) Apply(ctx context.Context, t portal.Table) error {
	began, err := d.c.generation()
	if err != nil {
		return fmt.Errorf("program tables %s: %w", d.tables[0].name, err)
	}
	trusted, looked := began != 0 && began == d.gen, true
	d.gen, d.c.commits = 0, 0
	var errs []error
	for _, tab := range d.tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		looked = looked && !tab.known
		err := d.apply(tab, t)
		if err != nil && tab.known { // somebody else changed our table, or an answer was lost: look and try again
			tab.known = false
			err = d.apply(tab, t)
		}
		if errors.As(err, new(refusal)) {
			err = d.isolate(tab, &t)
		}
		if err != nil {
			tab.known = false
			errs = append(errs, fmt.Errorf("program table %s %s: %w", tab.f.name, tab.name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	bad := portal.NotProgrammed{}
	for _, tab := range d.tables {
		maps.Copy(bad, tab.bad)
	}
	if len(bad) > 0 {
		return bad
	}
	if ended, err := d.c.generation(); err == nil && (trusted || looked) && ended == began+d.c.commits {
		d.gen = ended // whatever happened since we began was ours
	}
	return nil
}

func (d *DataPlane) apply(tab *table, next portal.Table) error {
	var b batch
	var cs []change
	var refs map[elemKey]int
	changed, since := next.Since(tab.last)
	since = since && !tab.blames(changed)
	if since && tab.unused && !tab.concerns(changed) || !tab.known && tab.f == ip6 && !tab.used(&next) {
		tab.unused, tab.last = true, next
		tab.last.Portals = nil
		return nil
	}
	look := true
	if since && tab.known {
		look = sweeps(changed)
		cs, refs = tab.step(&next, changed), tab.refs
	} else {
		have, err := d.c.read(tab, &b)
		if err != nil {
			return err
		}
		tab.adopt(&next, have)
		if len(have) == 0 {
			cs, refs = tab.loaded(&next)
		} else {
			var want map[elemKey]string
			want, refs = tab.wanted(&next)
			cs = compareElems(want, have)
		}
		tab.bad = nil
	}
	if err := d.write(tab, &b, cs); err != nil {
		return err
	}
	if !since || !tab.known {
		d.tidy(tab, &next)
	}
	tab.known, tab.unused, tab.last, tab.refs = true, false, next, refs
	tab.last.Portals = nil
	if look {
		return d.sweep(tab, &next)
	}
	return nil
}

// write commits what b holds and the changes, with the chains that they lead to.
func (d *DataPlane) write(tab *table, b *batch, cs []change) error {
	for _, name := range tab.needed(cs) {
		tab.putChain(b, tab.f.class(name))
		tab.classes[name] = true
	}
	flush := func() error {
		err := d.c.commit(b)
		*b = batch{}
		return err
	}
	if err := tab.write(b, d.c.limit, cs, flush); err != nil {
		return err
	}
	return flush()
}

// tidy removes chains that nothing leads to, and what others have left. That it cannot is no harm: somebody else's rule may
// lead there.
func (d *DataPlane) tidy(tab *table, next *portal.Table) {
	if tab.strays.n > 0 {
		_ = d.c.commit(&tab.strays)
		tab.strays = batch{}
	}
	idle := maps.Clone(tab.classes)
	for k, p := range next.Portals {
		if len(idle) == 0 {
			return
		}
		if tab.mine(k) {
			own(tab.f, k, p, func(e elemKey, v string) {
				if tab.sets[e.set].verdicts {
					delete(idle, v)
				}
			})
		}
	}
	var b batch
	for name := range idle {
		tab.dropChain(&b, name)
	}
	if d.c.commit(&b) == nil {
		maps.DeleteFunc(tab.classes, func(name string, _ bool) bool { return idle[name] })
	}
}

// used reports that the family has anything to do: a node without IPv6 services gets no IPv6 table.
func (t *table) used(next *portal.Table) bool {
	for _, p := range next.Nets {
		if p.Addr().Is4() == (t.f == ip4) {
			return true
		}
	}
	for k := range next.Portals {
		if t.mine(k) {
			return true
		}
	}
	return false
}

// blames reports that one of the changes is of a service that the kernel has refused: then nobody knows what it holds of it.
func (t *table) blames(changed []portal.Change) bool {
	return len(t.bad) > 0 && slices.ContainsFunc(changed, func(c portal.Change) bool {
		return c.Was != nil && t.bad[c.Was.Service.Name] != nil || c.Now != nil && t.bad[c.Now.Service.Name] != nil
	})
}

// concerns reports that one of the changes is this family's.
func (t *table) concerns(changed []portal.Change) bool {
	return slices.ContainsFunc(changed, func(c portal.Change) bool { return t.mine(c.Key) })
}

// Cleanup removes our tables and nothing else. It succeeds when they are not there.
func (d *DataPlane) Cleanup(context.Context) error {
	var errs []error
	for _, tab := range d.tables {
		tab.known, tab.unused = false, false
		errs = append(errs, d.c.deleteTable(tab.f, tab.name))
	}
	return errors.Join(errs...)
}

func (c *conn) deleteTable(f *family, name string) error {
	var b batch
	b.msg(msgDelTable, 0, f.nf, func(e *enc) { e.str(attrTableName, name) })
	if err := c.commit(&b); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete table %s %s: %w", f.name, name, err)
	}
	return nil
}
