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
	out := rules
	if f == ip6 { // an answer to ::1 would never arrive: no other packet may carry that address, and there is no route_localnet
		loopback := append(make([]byte, 15), 1)
		out = append([]rule{{"ip6 daddr ::1 return", one(f.daddr(firstReg), compare(firstReg, 0, loopback), verdict(verdictReturn, ""))}}, rules...)
	}
	post := []rule{
		{"ct status ! dnat return", one(ct(ctStatus, firstReg), bits(firstReg, 0x20), compare(firstReg, 0, native(0)), verdict(verdictReturn, ""))},
		{fmt.Sprintf("%s saddr . %s daddr @self masquerade fully-random", f.ip, f.ip), one(
			f.saddr(firstReg), f.daddr(firstReg+f.size/4), member("self", firstReg, false), masquerade())},
	}
	chains := []chain{
		{name: "prerouting", kind: "nat", hook: hookPrerouting, priority: -101, rules: rules},
		{name: "output", kind: "nat", hook: hookOutput, priority: -101, rules: out},
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
	// Saved, unless nil, tells what was in a table that is gone or has another version's shape, so that it is made anew
	// with the ports of all. Of two that have the same port the first gets it.
	Saved func() []Held

	c       *conn
	removed bool // ports, through this socket
	known   [2]*table
}

// table is the family's; it is put together once.
func (h *HostPorts) table(f *family) *table {
	i := 0
	if f == ip6 {
		i = 1
	}
	if h.known[i] == nil {
		h.known[i] = hostPorts(f)
	}
	return h.known[i]
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

// Close lets go of the socket. What is programmed stays. While the kernel has yet to free what anybody removed, closing
// takes some ten milliseconds (nft_rcv_nl_event); the removal itself is in force already. Then leave, unless nil, is asked
// before to have another process hold the socket open meanwhile; when it fails, Close waits. Recent says that there was a
// removal lately by another socket.
func (h *HostPorts) Close(recent bool, leave func(fd int) error) error {
	if (h.removed || recent) && leave != nil {
		_ = leave(h.c.fd)
	}
	return h.c.close()
}

// Removed reports that ports have been taken away through this socket.
func (h *HostPorts) Removed() bool { return h.removed }

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
// another holds is a *Conflict. Where a table's rules are not right or a set has another shape, the tables are mended.
func (h *HostPorts) Add(holder string, ms []Mapping) error {
	v4, v6 := wants(ms)
	if err := h.ensureRules(v4, v6); err != nil {
		return err
	}
	err := h.add(holder, ms)
	var taken *Conflict
	if err == nil || errors.As(err, &taken) || errors.Is(err, errUnknown) {
		return err
	}
	if merr := h.Ensure(v4, v6); merr != nil { // perhaps a set is not as it should be although the rules are
		return errors.Join(err, merr)
	}
	return h.add(holder, ms)
}

// add looks each port up before: a transaction that is refused waits ten milliseconds for the kernel to undo it.
func (h *HostPorts) add(holder string, ms []Mapping) error {
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
		h.putSelf(&b, msgNewSetElem, flagCreate, m.To.Addr())
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

// putSelf adds or removes a pod of those that may reach themselves through the node.
func (h *HostPorts) putSelf(b *batch, typ, flags uint16, pod netip.Addr) {
	h.element(b, typ, flags, family4(pod), self(pod), "", "")
}

func self(pod netip.Addr) elemKey { return elemKey{set: setSelf, key: addrKey(pod) + addrKey(pod)} }

// Remove takes away those of the ports that the holder has. It succeeds when there is nothing left to take.
func (h *HostPorts) Remove(holder string, ms []Mapping) error {
	err := h.remove(holder, ms)
	if err == nil || errors.Is(err, errUnknown) {
		return err
	}
	if merr := h.Ensure(wants(ms)); merr != nil { // perhaps the sets are those of another version
		return errors.Join(err, merr)
	}
	return h.remove(holder, ms)
}

func (h *HostPorts) remove(holder string, ms []Mapping) error {
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
			h.putSelf(&selves, msgDelSetElem, 0, a)
		}
	}
	if b.n == 0 {
		return nil
	}
	h.removed = true
	both := batch{e: enc{slices.Clone(b.e.b)}, last: b.last, n: b.n}
	for a := range seen {
		h.putSelf(&both, msgDelSetElem, 0, a)
	}
	err := h.c.commit(&both)
	if errors.Is(err, unix.ENOENT) { // a pod that others took out of the set already must not keep its ports alive
		err = errors.Join(ignore(h.c.commit(&b), unix.ENOENT), ignore(h.c.commit(&selves), unix.ENOENT))
	}
	if err != nil {
		return fmt.Errorf("remove host ports: %w", err)
	}
	return nil
}

// List is every port in the kernel, in no order.
func (h *HostPorts) List() ([]Held, error) {
	var out []Held
	for _, f := range families(true, true) {
		t := h.table(f)
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
	h.element(b, typ, flags, family4(m.To.Addr()), m.place(), endpoint(m.To), holder)
}

func (h *HostPorts) element(b *batch, typ, flags uint16, f *family, at elemKey, value, note string) {
	t := h.table(f)
	b.msg(typ, flags, f.nf, func(e *enc) {
		e.str(attrElemsTable, t.name)
		e.str(attrElemsSet, t.sets[at.set].name)
		end := e.nest(attrElemsList)
		putNoted(e, t.sets[at.set], at, value, note)
		end()
	})
}

// Holder looks up who has the port.
func (h *HostPorts) Holder(m Mapping) (held Held, ok bool, err error) {
	f, at := family4(m.To.Addr()), m.place()
	err = h.lookup(f, at, func(e []byte) { held, ok = readHeld(f, at.set, e) })
	return held, ok, err
}

// lookup gives found the attributes of an element if it is there.
func (h *HostPorts) lookup(f *family, at elemKey, found func(e []byte)) error {
	t := h.table(f)
	return h.c.get(msgGetSetElem, f.nf, func(e *enc) {
		e.str(attrElemsTable, t.name)
		e.str(attrElemsSet, t.sets[at.set].name)
		end := e.nest(attrElemsList)
		putElement(e, set{}, at, "")
		end()
	}, func(b []byte) { attrs(attr(b, attrElemsList), func(_ uint16, e []byte) { found(e) }) })
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
