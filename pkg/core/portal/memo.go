// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"maps"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Memo computes Tables one after another and decides anew only for services that changed. It is not for concurrent use.
type Memo struct {
	opts    Options
	asked   map[service.Name]memo
	held    map[Key][]Portal  // all claimants of a key, best first
	refused map[Key][]Refusal // what the claims for a key did not get
	dirty   map[Key]bool      // keys whose claimants changed since last
	last    Table
}

// memo is what one service was and what it claimed.
type memo struct {
	svc    service.Service
	eps    map[service.PortName][]service.Endpoint
	claims []claim
}

// NewMemo returns a Memo for one node. Another node, or changed options, needs another Memo.
func NewMemo(o Options) *Memo {
	if o.NodePortAddrs == nil {
		o.NodePortAddrs = primaries(o.Node.Addresses)
	}
	m := &Memo{opts: o, asked: map[service.Name]memo{}, held: map[Key][]Portal{}, refused: map[Key][]Refusal{}, dirty: map[Key]bool{}}
	m.last = Table{Portals: map[Key]Portal{}, Nets: o.Nets, Here: here(o.Node), Pods: o.Node.PodSubnets, step: step{line: new(line)}}
	return m
}

// Compute is the Table for s.
func (m *Memo) Compute(s service.Snapshot) Table {
	for name, old := range m.asked {
		if _, still := s.Services[name]; !still {
			m.release(old.claims)
			delete(m.asked, name)
		}
	}
	for name, svc := range s.Services {
		old, known := m.asked[name]
		if known && unchanged(old, svc, s.Endpoints) {
			continue
		}
		eps := make(map[service.PortName][]service.Endpoint, len(svc.Ports))
		for _, p := range svc.Ports {
			pn := service.PortName{Name: name, Port: p.Name}
			eps[pn] = s.Endpoints[pn]
		}
		m.release(old.claims)
		now := memo{svc, eps, claims(svc, eps, &m.opts)}
		m.asked[name] = now
		m.grant(now.claims)
	}
	if len(m.dirty) > 0 {
		m.last = m.table()
		m.dirty = map[Key]bool{}
	}
	return m.last
}

// table is the last one with what became dirty decided anew. The last one itself is published and stays as it is.
func (m *Memo) table() Table {
	t := m.last
	t.Portals = maps.Clone(t.Portals)
	t.step = step{line: t.step.line, n: t.step.n + 1, changed: slices.Collect(maps.Keys(m.dirty))}
	for key := range m.dirty {
		m.decide(t.Portals, key)
	}
	t.Refused = nil
	for _, rs := range m.refused {
		t.Refused = append(t.Refused, rs...)
	}
	slices.SortFunc(t.Refused, func(a, b Refusal) int {
		if c := compareNames(a.Service, b.Service); c != 0 {
			return c
		}
		return a.Key.Compare(b.Key)
	})
	return t
}

// decide gives one key to its best claimant, if it may have it, and notes who does not get it.
func (m *Memo) decide(portals map[Key]Portal, key Key) {
	delete(portals, key)
	delete(m.refused, key)
	all, best := m.held[key], 0
	if len(all) == 0 {
		return
	}
	var refused []Refusal
	if why := whyNot(claim{key, all[0]}, &m.opts); why != "" {
		refused = append(refused, Refusal{all[0].Service, key, why})
		best = 1
	}
	if best < len(all) {
		portals[key] = all[best]
	}
	for _, p := range all[min(best+1, len(all)):] {
		refused = append(refused, Refusal{p.Service, key, all[best].Kind.String() + " of " + all[best].Service.String()})
	}
	if len(refused) > 0 {
		m.refused[key] = refused
	}
}

func (m *Memo) grant(cs []claim) {
	for _, c := range cs {
		m.dirty[c.key] = true
		all := slices.Clone(m.held[c.key])
		i, _ := slices.BinarySearchFunc(all, c.portal, func(a, b Portal) int {
			if better(a, b) {
				return -1
			}
			return 1
		})
		m.held[c.key] = slices.Insert(all, i, c.portal)
	}
}

func (m *Memo) release(cs []claim) {
	for _, c := range cs {
		m.dirty[c.key] = true
		all := slices.DeleteFunc(slices.Clone(m.held[c.key]), func(p Portal) bool {
			return p.Service == c.portal.Service && p.Kind == c.portal.Kind
		})
		if len(all) == 0 {
			delete(m.held, c.key)
			continue
		}
		m.held[c.key] = all
	}
}

// unchanged compares by value, but slices that are the very same are not looked into: sources that change one service
// leave the others' values alone.
func unchanged(old memo, svc service.Service, eps map[service.PortName][]service.Endpoint) bool {
	o := old.svc
	if !same(o.ClusterIPs, svc.ClusterIPs) || !same(o.ExternalIPs, svc.ExternalIPs) || !same(o.LoadBalancers, svc.LoadBalancers) ||
		!same(o.SourceRanges, svc.SourceRanges) || !same(o.Ports, svc.Ports) || !maps.Equal(o.Annotations, svc.Annotations) ||
		o.InternalPolicy != svc.InternalPolicy || o.ExternalPolicy != svc.ExternalPolicy || o.Distribution != svc.Distribution ||
		o.NotReady != svc.NotReady || o.Affinity != svc.Affinity {
		return false
	}
	for _, p := range svc.Ports {
		pn := service.PortName{Name: svc.Name, Port: p.Name}
		if !sameFunc(old.eps[pn], eps[pn], equalEndpoint) {
			return false
		}
	}
	return true
}

func same[E comparable](a, b []E) bool {
	return sameFunc(a, b, func(a, b E) bool { return a == b })
}

func sameFunc[E any](a, b []E, equal func(a, b E) bool) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, equal))
}

func equalEndpoint(a, b service.Endpoint) bool {
	return a.Addr == b.Addr && a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating &&
		a.Node == b.Node && a.Zone == b.Zone && slices.Equal(a.ForZones, b.ForZones) && slices.Equal(a.ForNodes, b.ForNodes)
}
