// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// Mapping leads one port of the node to a pod.
type Mapping struct {
	HostIP   netip.Addr // unspecified address of the family: any of the node's
	Protocol service.Protocol
	HostPort uint16
	To       netip.AddrPort
}

// String is "TCP 0.0.0.0:80 -> 10.10.10.2:8080".
func (m Mapping) String() string {
	return fmt.Sprintf("%s -> %s", portal.Key{Addr: m.HostIP, Protocol: m.Protocol, Port: m.HostPort}, m.To)
}

// Held is a Mapping in the kernel with the name of whom it is for.
type Held struct {
	Mapping
	Holder string
}

// Conflict is the error of Add for a port that another holds.
type Conflict struct {
	Wanted Mapping
	By     Held
}

func (c *Conflict) Error() string {
	return fmt.Sprintf("hostPort %s %s is taken by %s for %s", c.Wanted.Protocol, netip.AddrPortFrom(c.Wanted.HostIP, c.Wanted.HostPort), c.By.Holder, c.By.To)
}

// MaxHolder bounds a holder's name: longer comments make other readers of the ruleset fail.
const MaxHolder = 120

// Sets of the hostPorts' table.
const (
	setHostIP setID = iota // node address . protocol . port -> pod . port
	setAnyIP               // protocol . port -> pod . port
	setSelf                // pods that reach themselves through the node
)

// hostPorts is the plugin's table of one family. The node's own packets pass through output; those to 127.0.0.1 get
// another source, because the pod could not answer it, and nobody else may use the way that route_localnet opens.
func hostPorts(f *family) *table {
	a := f.addrType
	to := []uint32{a, typeService}
	dial := f.ip + " daddr . meta l4proto . th dport"
	local := []expr{fibLocal(firstReg), compare(firstReg, 0, native(2))}
	nat := func(key string, load []expr, m string) rule {
		return rule{fmt.Sprintf("fib daddr type local dnat %s to %s map @%s", f.name, key, m),
			join(local, load, one(mapped(m, firstReg, firstReg), dnat(f.nf, firstReg, firstReg+f.size/4)))}
	}
	rules := []rule{
		nat(dial, f.dial(firstReg), "hostip"),
		nat("meta l4proto . th dport", one(metaL4Proto(firstReg), payload(2, 2, 2, firstReg+1)), "anyip"),
	}
	post := []rule{
		{"ct status ! dnat return", one(ct(ctStatus, firstReg), bits(firstReg, 0x20), compare(firstReg, 0, native(0)), verdict(verdictReturn, ""))},
		{fmt.Sprintf("%s saddr . %s daddr @self masquerade fully-random", f.ip, f.ip), one(
			f.saddr(firstReg), f.daddr(firstReg+f.size/4), member("self", firstReg, false), masquerade())},
	}
	chains := []chain{
		{name: "prerouting", kind: "nat", hook: hookPrerouting, priority: -101, rules: rules},
		{name: "output", kind: "nat", hook: hookOutput, priority: -101, rules: rules},
	}
	if f == ip4 {
		post = append(post, rule{"ip saddr 127.0.0.0/8 masquerade fully-random", one(payload(1, f.src, 1, firstReg), compare(firstReg, 0, []byte{127}), masquerade())})
		chains = append(chains, chain{name: "guard", kind: "filter", hook: hookPrerouting, priority: -300, rules: []rule{
			{`iif != "lo" ip daddr 127.0.0.0/8 drop`, one(metaIif(firstReg), compare(firstReg, 1, native(1)),
				payload(1, f.dst, 1, firstReg), compare(firstReg, 0, []byte{127}), verdict(verdictDrop, ""))},
		}})
	}
	chains = append(chains, chain{name: "postrouting", kind: "nat", hook: hookPostrouting, priority: 99, rules: post})
	return &table{name: mark.TableHostPorts, f: f, chains: chains, classes: map[string]bool{}, sets: []set{
		setHostIP: {name: "hostip", key: []uint32{a, typeProto, typeService}, data: to},
		setAnyIP:  {name: "anyip", key: []uint32{typeProto, typeService}, data: to},
		setSelf:   {name: "self", key: []uint32{a, a}},
	}}
}

// HostPorts keeps the tables "l3edge_hostports" of one network namespace.
type HostPorts struct {
	c       *conn
	removed bool // ports, through this socket
}

// OpenHostPorts opens the namespace of the calling thread.
func OpenHostPorts() (*HostPorts, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	return &HostPorts{c: c}, nil
}

// Fd is the nfnetlink socket, for others to use between two calls.
func (h *HostPorts) Fd() int { return h.c.fd }

// Close lets go of the socket. What is programmed stays. After a removal, closing takes some ten milliseconds: the ports
// are gone already, but the kernel frees their memory first (nft_rcv_nl_event). Then leave, unless nil, is asked before to
// have another process hold the socket open meanwhile; when it fails, Close waits.
func (h *HostPorts) Close(leave func(fd int) error) error {
	if h.removed && leave != nil {
		_ = leave(h.c.fd)
	}
	return h.c.close()
}

// Ensure makes the tables of the families, as far as they are not there and right. Elements stay.
func (h *HostPorts) Ensure(v4, v6 bool) error {
	var b batch
	for _, f := range families(v4, v6) {
		t := hostPorts(f)
		if err := h.c.mend(t, &b); err != nil {
			return fmt.Errorf("table %s %s: %w", f.name, t.name, err)
		}
	}
	if err := h.c.commit(&b); err != nil {
		return fmt.Errorf("make table %s: %w", mark.TableHostPorts, err)
	}
	return nil
}

// ensureRules is Ensure by a look at the rules of our tables alone: there is no rule without its chain and the sets it
// looks into. The kernel lists chains only all together, and a node may have ten thousand of others.
func (h *HostPorts) ensureRules(v4, v6 bool) error {
	for _, f := range families(v4, v6) {
		t := hostPorts(f)
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
		t := hostPorts(f)
		if err := h.c.mend(t, &b); err != nil {
			return err
		}
		if b.n > 0 {
			return fmt.Errorf("table %s %s: its rules are gone or it has been changed", f.name, t.name)
		}
	}
	return nil
}

func wants(ms []Mapping) (v4, v6 bool) {
	for _, m := range ms {
		v4, v6 = v4 || m.To.Addr().Is4(), v6 || m.To.Addr().Is6()
	}
	return v4, v6
}

func families(v4, v6 bool) []*family {
	var out []*family
	if v4 {
		out = append(out, ip4)
	}
	if v6 {
		out = append(out, ip6)
	}
	return out
}

// Add leads all of the ports to their pods, or none. What the holder has already may be added again; a port that
// another holds is a *Conflict.
func (h *HostPorts) Add(holder string, ms []Mapping) error {
	v4, v6 := wants(ms)
	if err := h.ensureRules(v4, v6); err != nil {
		return err
	}
	var b batch
	for _, m := range ms {
		held, ok, err := h.Holder(m)
		switch {
		case err != nil:
			return err
		case ok && (held.Holder != holder || held.To != m.To):
			return &Conflict{m, held}
		case !ok:
			h.put(&b, msgNewSetElem, flagCreate|flagExcl, m, holder)
		}
		self := m.To.Addr()
		hostPorts(family4(self)).list(&b, msgNewSetElem, flagCreate, []change{{elemKey: elemKey{set: setSelf, key: addrKey(self) + addrKey(self)}, has: true}},
			func(change) (string, bool) { return "", true })
	}
	err := h.c.commit(&b)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) { // somebody was faster
		for _, m := range ms {
			if held, ok, _ := h.Holder(m); ok && held.Holder != holder {
				return &Conflict{m, held}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("add host ports: %w", err)
	}
	return nil
}

// Remove takes away those of the ports that the holder has. It succeeds when there is nothing left to take.
func (h *HostPorts) Remove(holder string, ms []Mapping) error {
	var b, selves batch
	seen := map[netip.Addr]bool{}
	for _, m := range ms {
		held, ok, err := h.Holder(m)
		if err != nil {
			return err
		}
		if !ok || held.Holder != holder {
			continue
		}
		h.put(&b, msgDelSetElem, 0, m, "")
		if a := m.To.Addr(); !seen[a] {
			seen[a] = true
			hostPorts(family4(a)).list(&selves, msgDelSetElem, 0, []change{{elemKey: elemKey{set: setSelf, key: addrKey(a) + addrKey(a)}, had: true}},
				func(change) (string, bool) { return "", true })
		}
	}
	// In two transactions: a pod that others took out of the set already must not keep its ports alive.
	h.removed = h.removed || b.n > 0
	for _, t := range []*batch{&b, &selves} {
		if err := h.c.commit(t); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove host ports: %w", err)
		}
	}
	return nil
}

// List is every port in the kernel, in no order.
func (h *HostPorts) List() ([]Held, error) {
	var out []Held
	for _, f := range families(true, true) {
		t := hostPorts(f)
		for id := range t.sets[:setSelf] {
			var part []Held
			fill := func(e *enc) { e.str(attrElemsTable, t.name); e.str(attrElemsSet, t.sets[id].name) }
			err := h.c.dump(msgGetSetElem, f.nf, fill, func() { part = nil }, func(b []byte) {
				attrs(attr(b, attrElemsList), func(_ uint16, e []byte) {
					if held, ok := readHeld(f, setID(id), e); ok { //nolint:gosec // two sets
						part = append(part, held)
					}
				})
			})
			if err != nil {
				return nil, err
			}
			out = append(out, part...)
		}
	}
	return out, nil
}

// Cleanup removes our tables.
func (h *HostPorts) Cleanup() error {
	return errors.Join(h.c.deleteTable(ip4, mark.TableHostPorts), h.c.deleteTable(ip6, mark.TableHostPorts))
}

func family4(a netip.Addr) *family {
	if a.Is4() {
		return ip4
	}
	return ip6
}

// place is where a mapping stands: its set and key.
func (m Mapping) place() elemKey {
	key := dialKey(portal.Key{Addr: m.HostIP, Protocol: m.Protocol, Port: m.HostPort})
	if m.HostIP.IsUnspecified() {
		return elemKey{set: setAnyIP, key: key[len(key)-8:]}
	}
	return elemKey{set: setHostIP, key: key}
}

func (h *HostPorts) put(b *batch, typ, flags uint16, m Mapping, holder string) {
	f := family4(m.To.Addr())
	t, at := hostPorts(f), m.place()
	b.msg(typ, flags, f.nf, func(e *enc) {
		e.str(attrElemsTable, t.name)
		e.str(attrElemsSet, t.sets[at.set].name)
		end := e.nest(attrElemsList)
		putNoted(e, t.sets[at.set], at, endpoint(m.To), holder)
		end()
	})
}

// Holder looks up who has the port.
func (h *HostPorts) Holder(m Mapping) (held Held, ok bool, err error) {
	f := family4(m.To.Addr())
	t, at := hostPorts(f), m.place()
	err = h.c.get(msgGetSetElem, f.nf, func(e *enc) {
		e.str(attrElemsTable, t.name)
		e.str(attrElemsSet, t.sets[at.set].name)
		end := e.nest(attrElemsList)
		putElement(e, set{}, at, "")
		end()
	}, func(b []byte) {
		attrs(attr(b, attrElemsList), func(_ uint16, e []byte) { held, ok = readHeld(f, at.set, e) })
	})
	return held, ok, err
}

func readHeld(f *family, id setID, e []byte) (Held, bool) {
	key, to := attr(e, attrElemKey, attrDataValue), attr(e, attrElemData, attrDataValue)
	addr := f.zero()
	if id == setHostIP && len(key) >= int(f.size) {
		addr, _ = netip.AddrFromSlice(key[:f.size])
		key = key[f.size:]
	}
	if len(key) < 8 || len(to) < int(f.size)+2 {
		return Held{}, false
	}
	pod, _ := netip.AddrFromSlice(to[:f.size])
	held := Held{Mapping: Mapping{
		HostIP: addr, Protocol: service.Protocol(key[0]), HostPort: binary.BigEndian.Uint16(key[4:]),
		To: netip.AddrPortFrom(pod, binary.BigEndian.Uint16(to[f.size:])),
	}}
	if u := attr(e, attrElemUserdata); len(u) > 3 && u[0] == 0 && int(u[1])+2 <= len(u) {
		held.Holder = string(u[2 : 1+int(u[1])])
	}
	return held, true
}
