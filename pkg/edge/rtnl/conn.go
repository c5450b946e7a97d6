// SPDX-License-Identifier: Apache-2.0

// Package rtnl holds the shortest rtnetlink conversation that makes, checks and removes a pod's link.
//
// It is hand-made beside pkg/edge/link because a plugin's whole life is two milliseconds: one socket per namespace,
// one message per change, a veth pair made in one message on both sides with one queue per end (which spares two RCU
// grace periods under the kernel's global lock), and a deletion that does not wait for what nobody needs to wait for.
package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Conn is a socket to one namespace: the one its thread was in at Dial, wherever the thread goes later.
// It is for one goroutine.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// receiveSize is what the kernel offers per dump message at most (NLMSG_GOODSIZE, 32 KiB).
const receiveSize = 32 << 10

// replyTimeout is how long an answer may take; the kernel answers before send returns, save when it is stuck.
const replyTimeout = 30

// Dial opens a conversation with the namespace of the calling thread.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	// Extended acks carry the kernel's own words; without the request's echo; and a dump for one link lists only that one.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: replyTimeout})
	return &Conn{fd: fd}, nil
}

// Close ends the conversation.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// do sends m and waits for its acknowledgement.
func (c *Conn) do(m *message) error {
	return c.exchange(m, unix.NLM_F_ACK, func(uint16, []byte) {})
}

// get sends m and returns the one answer.
func (c *Conn) get(m *message) (payload []byte, err error) {
	err = c.exchange(m, unix.NLM_F_ACK, func(_ uint16, p []byte) { payload = bytes.Clone(p) })
	if err == nil && payload == nil {
		err = errors.New("no answer")
	}
	return payload, err
}

// dump sends m and calls f with each answer. It starts again when the kernel says that the list changed meanwhile.
func (c *Conn) dump(m *message) (all [][]byte, err error) {
	for range 10 {
		all = nil
		err = c.exchange(m, unix.NLM_F_DUMP, func(_ uint16, p []byte) { all = append(all, bytes.Clone(p)) })
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return all, err
}

var errInterrupted = errors.New("list changed while it was read")

func (c *Conn) exchange(m *message, flags uint16, f func(kind uint16, payload []byte)) error {
	c.seq++
	if err := c.send(m.finish(flags, c.seq)); err != nil {
		return err
	}
	if c.buf == nil {
		c.buf = make([]byte, receiveSize)
	}
	var interrupted bool
	for {
		n, err := c.receive(c.buf)
		if err != nil {
			return err
		}
		for rest := c.buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(rest))
			if length < unix.SizeofNlMsghdr || length > len(rest) {
				return errors.New("rtnetlink: broken message")
			}
			kind, mflags, seq := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint16(rest[6:]), binary.NativeEndian.Uint32(rest[8:])
			payload := rest[unix.SizeofNlMsghdr:length]
			rest = rest[min(align(length), len(rest)):]
			if seq != c.seq {
				continue // the rest of an exchange that was given up
			}
			interrupted = interrupted || mflags&unix.NLM_F_DUMP_INTR != 0
			switch kind {
			case unix.NLMSG_ERROR:
				return ackError(mflags, payload)
			case unix.NLMSG_DONE:
				if interrupted {
					return errInterrupted
				}
				return ackError(mflags, payload)
			default:
				f(kind, payload)
			}
		}
	}
}

func (c *Conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR { //nolint:errorlint // a bare number
			return err
		}
	}
}

func (c *Conn) receive(b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		if err == unix.EAGAIN { //nolint:errorlint // a bare number
			return 0, fmt.Errorf("rtnetlink: no answer in %d s", replyTimeout)
		}
		if err != unix.EINTR { //nolint:errorlint // a bare number
			return n, err
		}
	}
}

// ackError reads the errno of an NLMSG_ERROR or NLMSG_DONE and, where the kernel gave one, its text (NLMSGERR_ATTR_MSG).
func ackError(flags uint16, payload []byte) error {
	if len(payload) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(payload)))
	if errno == 0 {
		return nil
	}
	if flags&unix.NLM_F_ACK_TLVS != 0 && len(payload) > 4+unix.SizeofNlMsghdr {
		for kind, value := range attrs(payload[4+unix.SizeofNlMsghdr:]) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				return fmt.Errorf("%w (%s)", errno, cString(value))
			}
		}
	}
	return errno
}
