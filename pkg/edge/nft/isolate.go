// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// refusal is the kernel's answer to a transaction that it does not take, at one of its messages.
type refusal struct {
	message, of uint32
	errno       unix.Errno
}

func (r refusal) Error() string {
	return fmt.Sprintf("transaction refused at message %d of %d: %v", r.message, r.of, r.errno)
}

func (r refusal) Unwrap() error { return r.errno }

// isolate programs what the kernel takes after it has refused everything at once: one service that it cannot take must not
// keep the others from being answered. What it refuses is in tab.bad afterwards.
func (d *DataPlane) isolate(tab *table, next *portal.Table) error {
	var b batch
	have, err := d.c.read(tab, &b)
	if err == nil {
		err = d.c.commit(&b)
	}
	if err != nil {
		return err
	}
	tab.adopt(next, have)
	want, refs := tab.wanted(next)
	groups := map[service.Name][]change{} // that of no name is of several services
	for _, c := range compareElems(want, have) {
		var name service.Name
		if len(tab.sets[c.set].key) > 2 {
			if k, ok := tab.f.dialled([]byte(c.key)); ok {
				name = next.Portals[k].Service.Name
			}
		}
		groups[name] = append(groups[name], c)
	}
	bad := map[service.Name]error{}
	names := slices.SortedFunc(maps.Keys(groups), service.Name.Compare)
	if err := d.bisect(tab, names, groups, bad); err != nil {
		return err
	}
	tab.known, tab.unused, tab.last, tab.refs, tab.bad = true, false, *next, refs, bad
	tab.last.Portals = nil
	if err := bad[service.Name{}]; err != nil {
		return err // what many need
	}
	return d.sweep(tab, next)
}

// bisect commits the groups together or, if the kernel refuses, each half of them.
func (d *DataPlane) bisect(tab *table, names []service.Name, groups map[service.Name][]change, bad map[service.Name]error) error {
	var b batch
	var cs []change
	for _, name := range names {
		cs = append(cs, groups[name]...)
	}
	err := d.write(tab, &b, cs)
	var refused refusal
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return err
	case len(names) == 1:
		bad[names[0]] = refused.errno
		return nil
	}
	tab.classes = map[string]bool{} // those that the refused transaction brought are not there
	half := len(names) / 2
	return errors.Join(d.bisect(tab, names[:half], groups, bad), d.bisect(tab, names[half:], groups, bad))
}
