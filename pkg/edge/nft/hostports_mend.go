// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

// Ensure makes the tables of the families, as far as they are not there and right. Elements stay. A table that has to be
// made anew gets what is saved of it in the same transaction, so that no port of anybody is missing for a moment; and if
// the ruleset has changed since it was looked at, it is looked at again, so that nothing that came meanwhile is lost.
func (h *HostPorts) Ensure(v4, v6 bool) error {
	for range 20 {
		again, err := h.ensure(v4, v6)
		if err != nil {
			return fmt.Errorf("make table %s: %w", mark.TableHostPorts, err)
		}
		if !again {
			return nil
		}
	}
	return fmt.Errorf("make table %s: the ruleset never stood still", mark.TableHostPorts)
}

func (h *HostPorts) ensure(v4, v6 bool) (again bool, err error) {
	var b batch
	gen, err := h.c.generation()
	if err != nil {
		return false, err
	}
	b.raw(typeBatchBegin, flagRequest, 0, subsys, func(e *enc) { e.u32(attrBatchGeneration, gen) })
	for _, f := range families(v4, v6) {
		t := h.table(f)
		have, err := h.c.skeleton(t)
		if err != nil {
			return false, fmt.Errorf("%s: %w", f.name, err)
		}
		if !t.mend(have, &b).exists && h.Saved != nil {
			h.restore(f, &b)
		}
	}
	if b.n == 1 {
		return false, nil
	}
	err = h.c.commit(&b)
	return errors.Is(err, unix.ERESTART), ignore(err, unix.ERESTART)
}

func ignore(err error, one unix.Errno) error {
	if errors.Is(err, one) {
		return nil
	}
	return err
}

// restore appends the family's saved ports.
func (h *HostPorts) restore(f *family, b *batch) {
	seen := map[elemKey]bool{}
	for _, held := range h.Saved() {
		m := held.Mapping
		if family4(m.To.Addr()) != f || seen[m.place()] {
			continue
		}
		seen[m.place()] = true
		h.put(b, msgNewSetElem, flagCreate, m, held.Holder)
		h.putSelf(b, msgNewSetElem, flagCreate, m.To.Addr())
	}
}

// ensureRules is Ensure by a look at the rules of our tables alone: there is no rule without its chain and the sets it
// looks into. The kernel lists chains only all together, and a node may have ten thousand of others.
func (h *HostPorts) ensureRules(v4, v6 bool) error {
	for _, f := range families(v4, v6) {
		t := h.table(f)
		rules, err := h.c.rules(t)
		if err != nil {
			return fmt.Errorf("table %s %s: %w", f.name, t.name, err)
		}
		if slices.ContainsFunc(t.chains, func(ch chain) bool { return !ch.holds(rules[ch.name]) }) {
			return h.Ensure(v4, v6)
		}
	}
	return nil
}

// Check reports that the rules which lead to these ports are not all there and right. It changes nothing.
func (h *HostPorts) Check(ms []Mapping) error {
	v4, v6 := wants(ms)
	for _, f := range families(v4, v6) {
		var b batch
		t := h.table(f)
		if err := h.c.mend(t, &b); err != nil {
			return err
		}
		if b.n > 0 {
			return fmt.Errorf("table %s %s: its rules are gone or it has been changed", f.name, t.name)
		}
	}
	return nil
}

// ReachesItself reports that the pod may reach itself by its hostPorts.
func (h *HostPorts) ReachesItself(pod netip.Addr) (found bool, err error) {
	err = h.lookup(family4(pod), self(pod), func([]byte) { found = true })
	return found, err
}

// ServicesStand reports that portald's table is there: it has programmed services since the machine started, and the
// kernel answers them whether portald runs or not.
func (h *HostPorts) ServicesStand() (bool, error) {
	found := false
	for _, f := range families(true, true) {
		err := h.c.get(msgGetTable, f.nf, func(e *enc) { e.str(attrTableName, mark.TableServices) }, func([]byte) { found = true })
		if err != nil {
			return false, err
		}
	}
	return found, nil
}

const (
	msgGetGeneration    = 16 // NFT_MSG_GETGEN
	attrGeneration      = 1  // NFTA_GEN_ID
	attrBatchGeneration = 1  // NFNL_BATCH_GENID: the kernel takes the transaction only if nothing has changed since
)

// generation counts the transactions of the namespace.
func (c *conn) generation() (gen uint32, err error) {
	err = c.get(msgGetGeneration, 0, func(*enc) {}, func(b []byte) { gen = attrU32(b, attrGeneration) })
	return gen, err
}
