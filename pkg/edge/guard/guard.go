// SPDX-License-Identifier: Apache-2.0

// Package guard binds ports of bridges to the MAC and addresses of their pods: what a pod sends under another name is dropped.
//
// It is one nftables table of the bridge family for all pods of the node, made on first use; a pod is a few elements of its
// sets, so a packet costs two lookups however many pods there are. The messages are encoded here (linux/netfilter/nf_tables.h),
// because the plugin that uses them lives two milliseconds.
package guard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
)

// Conn is a conversation with nftables of the namespace that the calling thread was in at Dial.
type Conn struct {
	fd  int
	seq uint32
}

// Dial opens the conversation.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
	return &Conn{fd: fd}, nil
}

// Close ends the conversation. After a removal the kernel makes the last closer of the socket wait until what was removed
// has rested (some ten milliseconds); see Fd.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// Fd is the socket, so that another process may hold it open in this one's place (rtnl.Conn.Remove).
func (c *Conn) Fd() int { return c.fd }

// Set binds a port to its pod, replacing what it was bound to. The zero Guard binds to nothing: the port may send anything.
func (c *Conn) Set(port string, g attach.Guard) error {
	have, err := c.elements(port)
	if err != nil {
		return err
	}
	return c.bind(port, have, elementsOf(port, g))
}

// Add is Set for a port that is not bound to anything yet, and does not look.
func (c *Conn) Add(port string, g attach.Guard) error { return c.bind(port, nil, elementsOf(port, g)) }

func (c *Conn) bind(port string, have, want []element) error {
	if len(want) > 0 {
		if err := c.mend(); err != nil {
			return err
		}
	}
	if err := c.change(have, want); err != nil {
		return fmt.Errorf("bind port %s to its pod: %w", port, err)
	}
	return nil
}

// mend makes the table, or what others took out of it, so that a binding has effect. Bindings that are there stay.
func (c *Conn) mend() error {
	err := c.intact()
	if errors.Is(err, ErrChanged) || errors.Is(err, unix.ENOENT) {
		_, ours, cerr := c.called()
		if err = c.setUp(cerr == nil && !ours); err != nil {
			err = fmt.Errorf("make nftables table %s: %w", tableName, err)
		}
	}
	return err
}

// ErrChanged says that somebody has changed the table, so that bindings have no effect, or another.
var ErrChanged = errors.New("table bridge " + tableName + " has been changed")

// Get reads what a port is bound to; ErrChanged when the binding has no effect.
func (c *Conn) Get(port string) (attach.Guard, error) {
	have, err := c.elements(port)
	if err != nil || len(have) == 0 {
		return attach.Guard{}, err
	}
	if err := c.intact(); err != nil {
		return attach.Guard{}, err
	}
	var g attach.Guard
	for _, e := range have {
		rest := e.key[nameSize:]
		switch e.set {
		case setMACs:
			g.MAC = attach.MAC(rest[:6])
		case setSource4, setSource6:
			a, _ := netip.AddrFromSlice(rest[8:])
			g.Addrs = append(g.Addrs, a)
		}
	}
	slices.SortFunc(g.Addrs, netip.Addr.Compare)
	want := elementsOf(port, g)
	for _, e := range want {
		if !e.in(have) {
			return attach.Guard{}, fmt.Errorf("%w: set %s lacks %s", ErrChanged, e.set, port)
		}
	}
	for _, e := range have {
		if !e.in(want) {
			return attach.Guard{}, fmt.Errorf("%w: set %s has more of %s than the others", ErrChanged, e.set, port)
		}
	}
	return g, nil
}

// intact compares the table, its chain and the rules with ours; unix.ENOENT when there is no table.
func (c *Conn) intact() error {
	awake, ours, err := c.called()
	switch {
	case err != nil:
		return err
	case !awake:
		return fmt.Errorf("%w: it is dormant", ErrChanged)
	case !ours:
		return fmt.Errorf("%w: the hook, priority or policy of its chain is another", ErrChanged)
	}
	want := rules()
	var same []bool
	for range 10 {
		same = nil
		m := newMessage(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, c.next())
		m.str(unix.NFTA_RULE_TABLE, tableName)
		m.str(unix.NFTA_RULE_CHAIN, chainName)
		again, err := c.dump(m.finish(), func(b []byte) {
			same = append(same, len(same) < len(want) && is(b, want[len(same)]))
		})
		if err != nil {
			return fmt.Errorf("list the rules of table %s: %w", tableName, err)
		}
		if !again {
			break
		}
	}
	if len(same) != len(want) {
		return fmt.Errorf("%w: its rules are %d, not %d", ErrChanged, len(same), len(want))
	}
	if i := slices.Index(same, false); i >= 0 {
		return fmt.Errorf("%w: rule %d is another", ErrChanged, i+1)
	}
	return nil
}

// Prune removes the bindings of ports that are gone. ports lists those that are there; it is called after the bindings have
// been read, as a port is bound only when it is there.
func (c *Conn) Prune(ports func() (map[string]bool, error)) error {
	all, err := c.elements("")
	if err != nil || len(all) == 0 {
		return err
	}
	there, err := ports()
	if err != nil {
		return err
	}
	stale := slices.DeleteFunc(all, func(e element) bool { return there[e.port()] })
	if err := c.change(stale, nil); err != nil {
		return fmt.Errorf("remove bindings of ports that are gone: %w", err)
	}
	return nil
}

// element is one entry of one set.
type element struct {
	set string
	key []byte
}

func (e element) in(list []element) bool {
	return slices.ContainsFunc(list, func(o element) bool { return o.set == e.set && bytes.Equal(o.key, e.key) })
}

func (e element) port() string {
	name, _, _ := bytes.Cut(e.key[:nameSize], []byte{0})
	return string(name)
}

// elementsOf is a guard in elements.
func elementsOf(port string, g attach.Guard) []element {
	if g.MAC == (attach.MAC{}) {
		return nil
	}
	name := make([]byte, nameSize)
	copy(name, port)
	bound := append(append(bytes.Clone(name), g.MAC[:]...), 0, 0)
	out := []element{{setMACs, bound}, {setPorts, name}}
	for _, a := range g.Addrs {
		set := setSource4
		if a.Is6() {
			set = setSource6
		}
		out = append(out, element{set, append(bytes.Clone(bound), a.AsSlice()...)})
	}
	if len(g.Addrs) > 0 {
		out = append(out, element{setStrict, name})
	}
	return out
}

// change removes and adds elements in one transaction. What is on both sides stays as it is.
func (c *Conn) change(old, new []element) error {
	var b batch
	for _, e := range old {
		if !e.in(new) {
			b.element(unix.NFT_MSG_DELSETELEM, 0, e)
		}
	}
	for _, e := range new {
		if !e.in(old) {
			b.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, e)
		}
	}
	return c.commit(&b)
}

// elements lists what a port (empty: every port) has in the sets; nothing when there is no table.
func (c *Conn) elements(port string) (out []element, err error) {
	for _, set := range []string{setPorts, setStrict, setMACs, setSource4, setSource6} {
		keys, err := c.list(set)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list nftables set %s: %w", set, err)
		}
		for _, key := range keys {
			if e := (element{set, key}); len(key) >= nameSize && (port == "" || e.port() == port) {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// list reads the keys of a set.
func (c *Conn) list(set string) (keys [][]byte, err error) {
	for range 10 {
		keys = nil
		m := newMessage(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, c.next())
		m.str(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
		again, err := c.dump(m.finish(), func(b []byte) {
			for kind, list := range attrs(b) {
				if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					continue
				}
				for _, elem := range attrs(list) {
					for kind, key := range attrs(elem) {
						if kind == unix.NFTA_SET_ELEM_KEY {
							for _, v := range attrs(key) {
								keys = append(keys, bytes.Clone(v))
							}
						}
					}
				}
			}
		})
		if !again || err != nil {
			return keys, err
		}
	}
	return keys, errors.New("the set never stood still")
}

func (c *Conn) next() uint32 { c.seq++; return c.seq }

// dump sends a request and hands out each answer; again is true when the set changed meanwhile.
func (c *Conn) dump(request []byte, f func([]byte)) (again bool, err error) {
	if err := unix.Sendto(c.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	for {
		done, err := c.receive(func(flags uint16, payload []byte) {
			again = again || flags&unix.NLM_F_DUMP_INTR != 0
			f(payload)
		})
		if err == unix.EINTR || err == unix.EAGAIN { //nolint:errorlint // the kernel's bare numbers
			return true, nil
		}
		if done || err != nil {
			return again, err
		}
	}
}

// commit sends a transaction; the kernel answers the last message of it, or the first that it refuses.
func (c *Conn) commit(b *batch) error {
	if len(b.messages) == 0 {
		return nil
	}
	if err := unix.Sendto(c.fd, b.finish(c), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	_, err := c.receive(func(uint16, []byte) {})
	if err != nil { // more messages may have been refused
		for {
			if _, _, derr := unix.Recvfrom(c.fd, make([]byte, 64), unix.MSG_DONTWAIT); derr != nil {
				break
			}
		}
	}
	return err
}

// receive reads one datagram. done is true when it ends the exchange.
func (c *Conn) receive(f func(flags uint16, payload []byte)) (done bool, err error) {
	buf := make([]byte, 32<<10)
	n, _, err := unix.Recvfrom(c.fd, buf, 0)
	if err != nil {
		return false, err
	}
	for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
		length := int(binary.NativeEndian.Uint32(rest))
		if length < unix.SizeofNlMsghdr || length > len(rest) {
			return true, errors.New("nftables: broken message")
		}
		kind, flags, payload := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint16(rest[6:]), rest[unix.SizeofNlMsghdr:length]
		rest = rest[min((length+3)&^3, len(rest)):]
		switch {
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR && len(payload) >= 4:
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload))); errno != 0 {
				return true, errno
			}
			return true, nil
		case len(payload) > nfgenSize:
			f(flags, payload[nfgenSize:])
		}
	}
	return false, nil
}
