// SPDX-License-Identifier: Apache-2.0

// Package portal decides what a node answers for every service address: Compute makes the Table, Trace explains it.
package portal

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Key is what a client dials: one VIP (or node address), protocol and port.
type Key struct {
	Addr     netip.Addr
	Protocol service.Protocol
	Port     uint16
}

// String is PROTOCOL address:port, as in the article's log: "TCP 10.100.87.105:80".
func (k Key) String() string {
	return fmt.Sprintf("%s %s", k.Protocol, netip.AddrPortFrom(k.Addr, k.Port))
}

// Compare orders keys by address, protocol and port.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(k.Port, o.Port))
}

// Empty says what becomes of traffic to a portal that has no endpoint to offer.
type Empty uint8

// What to answer without endpoints: a refusal (TCP reset, ICMP port unreachable), or silence (policy Local).
const (
	Reject Empty = iota
	Drop
)

// Kind says what sort of address a Key is. Where two services claim one Key the lower kind wins.
type Kind uint8

// The kinds of service addresses.
const (
	ClusterIP Kind = iota
	LoadBalancer
	ExternalIP
	NodePort
)

// String is the kind as Kubernetes spells it.
func (k Kind) String() string {
	return [...]string{"ClusterIP", "LoadBalancer", "ExternalIP", "NodePort"}[k]
}

// Choice is the answer to one group of clients. Endpoints are sorted, without duplicates, maybe none.
type Choice struct {
	Endpoints []netip.AddrPort
	OnEmpty   Empty
}

// Portal is what stands behind one Key. Its own Endpoints and OnEmpty are for clients on this node: its pods and itself.
// It has 128 bytes, the most that a map holds in place: one more, and each portal is allocated.
type Portal struct {
	Service     service.PortName
	Kind        Kind
	OnEmpty     Empty
	Local       bool // external policy Local, of any Kind but ClusterIP: clients elsewhere meet endpoints of this node only
	Endpoints   []netip.AddrPort
	Outside     *Choice           // for clients that are not on this node; nil: the same
	Affinity    time.Duration     // ClientIP session affinity; 0: none
	Sources     []netip.Prefix    // who may come; empty: everybody. Others meet silence
	Annotations map[string]string // of the Service
}

// For returns what a client gets: inside is whether it is on this node.
func (p Portal) For(inside bool) Choice {
	if inside || p.Outside == nil {
		return Choice{p.Endpoints, p.OnEmpty}
	}
	return *p.Outside
}

// Equal reports that both portals treat every client alike.
func (p Portal) Equal(o Portal) bool {
	same := p.Service == o.Service && p.Kind == o.Kind && p.OnEmpty == o.OnEmpty && p.Local == o.Local && p.Affinity == o.Affinity &&
		slices.Equal(p.Endpoints, o.Endpoints) && slices.Equal(p.Sources, o.Sources) && maps.Equal(p.Annotations, o.Annotations)
	if !same || (p.Outside == nil) != (o.Outside == nil) {
		return false
	}
	return p.Outside == nil || p.Outside.OnEmpty == o.Outside.OnEmpty && slices.Equal(p.Outside.Endpoints, o.Outside.Endpoints)
}

// Table is the whole answer of one node at one moment. Compute's is immutable; a Memo's is true until its next Update.
type Table struct {
	Portals map[Key]Portal
	Nets    []netip.Prefix // portal nets: addresses inside that no Service holds are rejected, never routed
	Here    []netip.Prefix // what is known to be on this node: its pod subnets and its own addresses; empty: unknown, everything is
	Pods    []netip.Prefix // its pod subnets alone; none of a family: unknown, its pods count as clients elsewhere
	Refused []Refusal      // what could not be served, sorted by service

	step step
}

// line is the identity of a Memo, whose Tables follow one another. It has a size: two of no size may be one.
type line struct{ _ byte }

// step is where a Table stands among those of its Memo, and what is not as in the one before.
type step struct {
	line    *line
	n       uint64
	changed []Change
}

// Change is one Key that is not answered as before; nil: it is not answered, or was not.
type Change struct {
	Key      Key
	Was, Now *Portal
}

// Since lists what is not as in old, each Key once; false: that is not known, anything may. It is known of Tables that one
// Memo made one after the other, and of what Part makes of them. Of old nothing but its identity is looked at: its Portals
// may have changed since.
func (t Table) Since(old Table) ([]Change, bool) {
	switch {
	case t.step.line == nil || t.step.line != old.step.line:
		return nil, false
	case t.step.n == old.step.n:
		return nil, true
	}
	return t.step.changed, t.step.n == old.step.n+1
}

// Same reports that t and old are of one Memo with nothing between them.
func (t Table) Same(old Table) bool {
	return t.step.line != nil && t.step.line == old.step.line && t.step.n == old.step.n
}

// Part is a part of t: other Portals, chosen by a rule that looks at nothing but a Key and its Portal, and what of t's
// changes concerns them.
func (t Table) Part(portals map[Key]Portal, changed []Change) Table {
	t.Portals, t.step.changed = portals, changed
	return t
}

// Refusal is a claim of a Service that the Table does not grant.
type Refusal struct {
	Service service.PortName
	Key     Key
	Why     string
}

// String is for a log: what is refused to whom, and why.
func (r Refusal) String() string { return fmt.Sprintf("%s of %s: %s", r.Key, r.Service, r.Why) }

// NotProgrammed is the error of a data plane that answers as a Table says, but for these services: the kernel refuses them.
type NotProgrammed map[service.Name]error

// Error names the services.
func (n NotProgrammed) Error() string { return errors.Join(n.Each()...).Error() }

// Each is one error for each service.
func (n NotProgrammed) Each() []error {
	var errs []error
	for _, name := range slices.SortedFunc(maps.Keys(n), service.Name.Compare) {
		errs = append(errs, fmt.Errorf("service %s: the kernel refuses it: %w", name, n[name]))
	}
	return errs
}

// Inside reports that a is on this node.
func (t Table) Inside(a netip.Addr) bool {
	return len(t.Here) == 0 || a.IsLoopback() || within(t.Here, a)
}

// Guarded reports that nothing but the Table answers on a: a ClusterIP, a load balancer's address that is not this
// node's own, or any address of a portal net. What its portals do not take is rejected.
func (t Table) Guarded(a netip.Addr, k Kind) bool {
	return k == ClusterIP || k == LoadBalancer && !within(t.Here, a)
}

// KnowsPods reports that the node's pods of a's family can be told from others'.
func (t Table) KnowsPods(a netip.Addr) bool {
	return slices.ContainsFunc(t.Pods, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() })
}

// ComesBack reports that flows to a portal whose client and endpoint are not known to be on this node have their source
// rewritten, so that the answers come back this way. Under policy Local the endpoint is here, whatever its address; and
// where the node's pods are unknown most clients of ClusterIPs are such pods, whose source nobody may touch.
func (t Table) ComesBack(k Key, p Portal) bool {
	if p.Kind == ClusterIP {
		return t.KnowsPods(k.Addr)
	}
	return !p.Local
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}
