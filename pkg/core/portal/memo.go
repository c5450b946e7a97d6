// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Memo keeps the Table of one node while its services change: an Update costs what the services in it cost, however many
// others there are. It is not for concurrent use.
type Memo struct {
	opts    Options
	asked   map[service.Name]memo
	held    map[Key][]Portal  // all claimants of a key, best first; only of keys with several, or whose claimant may not have it
	refused map[Key][]Refusal // what the claims for a key did not get
	was     map[Key]*Portal   // keys whose claimants changed since the last Table, and what it gave; nil: nothing
	losses  bool              // refused changed since then
	table   Table
}

// memo is what one service was and what it claimed.
type memo struct {
	state *service.State
	keys  []Key
}

// NewMemo returns a Memo for one node, which has no services yet. Another node, or changed options, needs another Memo.
func NewMemo(o Options) *Memo {
	if o.NodePortAddrs == nil {
		o.NodePortAddrs = primaries(o.Node.Addresses)
	}
	if o.Localhost {
		o.NodePortAddrs = append(slices.Clone(o.NodePortAddrs), netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return &Memo{
		opts: o, asked: map[service.Name]memo{}, held: map[Key][]Portal{}, refused: map[Key][]Refusal{}, was: map[Key]*Portal{},
		table: Table{Portals: map[Key]Portal{}, Nets: o.Nets, Here: here(o.Node), Pods: o.Node.PodSubnets, step: step{line: new(line)}},
	}
}

// All is what an empty Memo would have to be told to know the same.
func (m *Memo) All() service.Delta {
	all := make(service.Delta, len(m.asked))
	for name, old := range m.asked {
		all[name] = old.state
	}
	return all
}

// Services is how many services there are.
func (m *Memo) Services() int { return len(m.asked) }

// Compute is the Table for s, and for nothing that came before.
func (m *Memo) Compute(s service.Snapshot) Table {
	d := s.Delta()
	for name := range m.asked {
		if _, still := d[name]; !still {
			d[name] = nil
		}
	}
	return m.Update(d)
}

// Update takes in what has changed and returns the Table as it is then. It is the same Table each time: the Portals of
// the last one have changed.
func (m *Memo) Update(d service.Delta) Table {
	for name, now := range d {
		old, known := m.asked[name]
		switch {
		case now == nil && !known, now != nil && known && now.Equal(old.state):
			continue
		case known:
			m.release(name, old.keys)
			delete(m.asked, name)
		}
		if now != nil {
			cs := claims(now, &m.opts)
			keys := make([]Key, len(cs))
			for i, c := range cs {
				keys[i] = c.key
				m.grant(c)
			}
			m.asked[name] = memo{now, keys}
		}
	}
	m.settle()
	return m.table
}

// settle makes the next Table of what is pending.
func (m *Memo) settle() {
	var changed []Change
	for key, was := range m.was {
		c := Change{Key: key, Was: was}
		if now, ok := m.table.Portals[key]; ok {
			c.Now = &now
		}
		if !(c.Was == nil && c.Now == nil) && !(c.Was != nil && c.Now != nil && c.Was.Equal(*c.Now)) {
			changed = append(changed, c)
		}
	}
	if len(changed) > 0 || m.losses {
		m.table.step = step{line: m.table.step.line, n: m.table.step.n + 1, changed: changed}
	}
	if m.losses {
		m.table.Refused = nil
		for _, rs := range m.refused {
			m.table.Refused = append(m.table.Refused, rs...)
		}
		slices.SortFunc(m.table.Refused, func(a, b Refusal) int {
			if c := compareNames(a.Service, b.Service); c != 0 {
				return c
			}
			return a.Key.Compare(b.Key)
		})
	}
	m.was, m.losses = map[Key]*Portal{}, false
}

// claimants lists who asks for a key, best first.
func (m *Memo) claimants(key Key) []Portal {
	if all, ok := m.held[key]; ok {
		return all
	}
	if p, ok := m.table.Portals[key]; ok {
		return []Portal{p}
	}
	return nil
}

// decide gives one key to the best of its claimants, if it may have it, and notes who does not get it.
func (m *Memo) decide(key Key, all []Portal) {
	if _, noted := m.was[key]; !noted {
		m.was[key] = nil
		if p, ok := m.table.Portals[key]; ok {
			m.was[key] = &p
		}
	}
	if _, lost := m.refused[key]; lost {
		delete(m.refused, key)
		m.losses = true
	}
	delete(m.table.Portals, key)
	delete(m.held, key)
	if len(all) == 0 {
		return
	}
	var refused []Refusal
	holder := -1
	for i, p := range all {
		switch why := whyNot(claim{key, p}, &m.opts); {
		case why != "":
			refused = append(refused, Refusal{p.Service, key, why})
		case holder >= 0:
			refused = append(refused, Refusal{p.Service, key, all[holder].Kind.String() + " of " + all[holder].Service.String()})
		default:
			holder = i
			m.table.Portals[key] = p
		}
	}
	if len(refused) > 0 {
		m.refused[key], m.held[key], m.losses = refused, all, true
	}
}

func (m *Memo) grant(c claim) {
	all := slices.Clone(m.claimants(c.key))
	i, _ := slices.BinarySearchFunc(all, c.portal, func(a, b Portal) int {
		if better(a, b) {
			return -1
		}
		return 1
	})
	m.decide(c.key, slices.Insert(all, i, c.portal))
}

func (m *Memo) release(name service.Name, keys []Key) {
	for _, key := range keys {
		m.decide(key, slices.DeleteFunc(slices.Clone(m.claimants(key)), func(p Portal) bool { return p.Service.Name == name }))
	}
}
