// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errUnknown means that the kernel's answer was lost: the transaction may or may not have been committed.
var errUnknown = errors.New("the kernel's answer was lost")

// conn is one netlink socket of the namespace it was opened in. It is not for concurrent use.
type conn struct {
	fd    int
	limit int // bytes that one transaction may have
	seq   uint32
	buf   []byte

	commits uint32 // transactions that the kernel took
}

const (
	sendBuffer = 32 << 20 // asked for; without privilege over the machine the kernel gives what it likes
	recvBuffer = 4 << 20
	largest    = 4 << 20 // bytes in one transaction at most, so that none holds the kernel for long
)

func open() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("open nftables socket: %w", err), unix.Close(fd))
	}
	force(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	force(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, recvBuffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)                     // errors need not carry our message back
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}) // an answer never takes so long
	size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		size = 100 << 10
	}
	return &conn{fd: fd, limit: min(largest, size/2)}, nil
}

// force sets a buffer size; in a user namespace only the polite way works, and only up to the system's limit.
func force(fd, hard, soft, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, hard, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soft, size)
	}
}

func (c *conn) close() error { return unix.Close(c.fd) }

// commit sends the transaction and reports whether the kernel took it. An empty one is nothing.
func (c *conn) commit(b *batch) error {
	if b.n == 0 {
		return nil
	}
	if err := unix.Sendto(c.fd, b.finish(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send transaction: %w", err)
	}
	// The kernel has worked on it within sendto: everything it has to say is in the queue.
	acked := false
	for {
		msgs, err := c.receive(unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if !acked {
				return errUnknown
			}
			c.commits++
			return nil
		case errors.Is(err, unix.ENOBUFS):
			return errUnknown
		case err != nil:
			return fmt.Errorf("read answer: %w", err)
		}
		for _, m := range msgs {
			if m.typ != unix.NLMSG_ERROR || len(m.body) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(m.body)); code != 0 { //nolint:gosec // an errno, negated
				c.drain()
				return refusal{m.seq, b.n, unix.Errno(-code)}
			}
			acked = true
		}
	}
}

func (c *conn) drain() {
	for {
		if _, err := c.receive(unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte // after the netlink header
}

// receive reads one datagram. The messages are valid until the next call.
func (c *conn) receive(flags int) ([]message, error) {
	if c.buf == nil {
		c.buf = make([]byte, 64<<10)
	}
	n, _, err := unix.Recvfrom(c.fd, c.buf, flags)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buf, flags)
	}
	if err != nil {
		return nil, err
	}
	return split(c.buf[:n]), nil
}

// split cuts a datagram into its messages.
func split(b []byte) []message {
	var out []message
	for len(b) >= 16 {
		size := int(binary.NativeEndian.Uint32(b))
		if size < 16 || size > len(b) {
			break
		}
		out = append(out, message{
			typ: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), body: b[16:size],
		})
		b = b[min((size+3)&^3, len(b)):]
	}
	return out
}

// get asks for one object; f is not called if it is not there.
func (c *conn) get(typ uint16, family byte, fill func(*enc), f func(b []byte)) error {
	c.seq++
	e := enc{appendHeader(nil, subsys<<8|typ, flagRequest|flagAck, c.seq, family, 0)}
	fill(&e)
	binary.NativeEndian.PutUint32(e.b, uint32(len(e.b))) //nolint:gosec // one element
	if err := unix.Sendto(c.fd, e.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("look up in nftables: %w", err)
	}
	for {
		msgs, err := c.receive(0)
		if err != nil {
			return fmt.Errorf("look up in nftables: %w", err)
		}
		for _, m := range msgs {
			switch {
			case m.seq != c.seq || len(m.body) < 4:
			case m.typ == unix.NLMSG_ERROR:
				errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.body))) //nolint:gosec // an errno, negated
				if errno != 0 && errno != unix.ENOENT {
					return fmt.Errorf("look up in nftables: %w", errno)
				}
				return nil
			default:
				f(m.body[4:])
			}
		}
	}
}

// dump lists objects: f gets the attributes of each. What is listed while others change it is listed again; ENOENT
// (the table or set is not there) is an empty list.
func (c *conn) dump(typ uint16, family byte, fill func(*enc), reset func(), f func(b []byte)) error {
	for range 20 {
		reset()
		again, err := c.dumpOnce(typ, family, fill, f)
		if err != nil {
			return fmt.Errorf("list nftables: %w", err)
		}
		if !again {
			return nil
		}
	}
	return errors.New("list nftables: it never stood still")
}

func (c *conn) dumpOnce(typ uint16, family byte, fill func(*enc), f func(b []byte)) (again bool, err error) {
	c.seq++
	e := enc{appendHeader(nil, subsys<<8|typ, flagRequest|flagDump, c.seq, family, 0)}
	if fill != nil {
		fill(&e)
	}
	binary.NativeEndian.PutUint32(e.b, uint32(len(e.b))) //nolint:gosec // a few dozen bytes
	if err := unix.Sendto(c.fd, e.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	for {
		msgs, err := c.receive(0)
		if err != nil {
			return false, err
		}
		for _, m := range msgs {
			again = again || m.flags&flagDumpIntr != 0
			switch {
			case m.seq != c.seq:
			case m.typ == unix.NLMSG_DONE:
				return again, nil
			case m.typ == unix.NLMSG_ERROR && len(m.body) >= 4:
				errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.body))) //nolint:gosec // an errno, negated
				switch {
				case errno == unix.ENOENT:
					return false, nil
				case errno == unix.EINTR || errno == unix.EAGAIN:
					return true, nil
				}
				return false, errno
			case len(m.body) >= 4:
				f(m.body[4:]) // after nfgenmsg
			}
		}
	}
}
