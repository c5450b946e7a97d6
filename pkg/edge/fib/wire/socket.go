// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// RecvSize is room for any message of the kernel's.
	RecvSize  = 64 << 10 // larger than any netlink dump message (32 KiB)
	sendBatch = 512      // messages per send: beyond some 64 more brings nothing, and the kernel must hold them at once
)

// Socket is one rtnetlink socket for requests. It belongs to the namespace of the thread that opened it.
type Socket struct {
	fd   int
	port uint32 // the kernel repeats it in notifications of what we caused
	seq  uint32
	recv []byte
}

// Open opens one in the calling thread's namespace. The caller closes it.
func Open() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	s := &Socket{fd: fd, recv: make([]byte, RecvSize)}
	if err := s.setup(); err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), s.Close())
	}
	return s, nil
}

func (s *Socket) setup() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	s.port = sa.(*unix.SockaddrNetlink).Pid
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return fmt.Errorf("netlink option %d: %w", opt, err)
		}
	}
	GrowBuffers(s.fd)
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
}

// GrowBuffers asks for room for a storm. Without the privilege to exceed the system's limit it takes what there is.
func GrowBuffers(fd int) {
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], 4<<20) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], 4<<20) // the default is enough when nothing else works
		}
	}
}

// Close lets go of it.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Refusal is the kernel's answer to one request of a batch.
type Refusal struct {
	Index int
	Err   error
}

// Batch collects requests and sends many at once.
type Batch struct {
	sock    *Socket
	buf     []byte
	last    int // where the last request begins
	pending int // requests in buf
	sent    int // requests before those
	Refused []Refusal
}

// Batch begins one.
func (s *Socket) Batch() *Batch { return &Batch{sock: s, buf: make([]byte, 0, sendBatch*96)} }

// Add appends one request: write appends the whole message to the buffer that it is given.
func (b *Batch) Add(write func([]byte) []byte) error {
	b.last = len(b.buf)
	b.buf = write(b.buf)
	b.sock.seq++
	Native.PutUint32(b.buf[b.last+8:], b.sock.seq)
	b.pending++
	if b.pending < sendBatch {
		return nil
	}
	return b.Flush()
}

// Flush sends what is pending and notes what the kernel refused; the rest took effect even then. An error means that
// the outcome is unknown: read the table.
func (b *Batch) Flush() error {
	if b.pending == 0 {
		return nil
	}
	flags := b.buf[b.last+6:]
	Native.PutUint16(flags, Native.Uint16(flags)|unix.NLM_F_ACK) // one answer for all, besides the Refusals
	if err := unix.Sendto(b.sock.fd, b.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	end := b.sock.seq
	first := end - uint32(b.pending) + 1
	err := b.sock.receive(func(h Header, body []byte) (done bool, err error) {
		if h.Type != unix.NLMSG_ERROR || h.Seq < first || h.Seq > end {
			return false, nil // left over from a request that was given up
		}
		if err := ackError(h, body); err != nil {
			b.Refused = append(b.Refused, Refusal{Index: b.sent + int(h.Seq-first), Err: err})
		}
		return h.Seq == end, nil
	})
	b.sent += b.pending
	b.buf, b.pending = b.buf[:0], 0
	return err
}

// Dump sends one dump request and hands every answer to f. The result is used only when the kernel says that nothing
// changed meanwhile; else the dump is repeated, and reset is called before each try.
func (s *Socket) Dump(msg []byte, reset func(), f func(typ uint16, body []byte) error) error {
	for range 10 {
		reset()
		s.seq++
		seq := s.seq
		Native.PutUint32(msg[8:], seq)
		if err := unix.Sendto(s.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("send to netlink: %w", err)
		}
		interrupted := false
		err := s.receive(func(h Header, body []byte) (bool, error) {
			switch {
			case h.Seq != seq:
				return false, nil
			case h.Type == unix.NLMSG_ERROR:
				return true, ackError(h, body)
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			if h.Type == unix.NLMSG_DONE {
				return true, nil
			}
			return false, f(h.Type, body)
		})
		if err != nil || !interrupted {
			return err
		}
	}
	return errors.New("netlink dump: interrupted by changes ten times in a row")
}

// Header is that of a message.
type Header struct {
	Type, Flags uint16
	Seq         uint32
	Port        uint32
}

// receive hands messages to f until it is done.
func (s *Socket) receive(f func(h Header, body []byte) (done bool, err error)) error {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.recv, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive from netlink: %w", err)
		}
		done := false
		err = Each(s.recv[:n], func(h Header, body []byte) error {
			d, err := f(h, body)
			done = done || d
			return err
		})
		if err != nil || done {
			return err
		}
	}
}

// Each walks the messages of one datagram.
func Each(data []byte, f func(h Header, body []byte) error) error {
	for len(data) >= unix.SizeofNlMsghdr {
		size := int(Native.Uint32(data))
		if size < unix.SizeofNlMsghdr || size > len(data) {
			return errors.New("receive from netlink: truncated message")
		}
		h := Header{Type: Native.Uint16(data[4:]), Flags: Native.Uint16(data[6:]), Seq: Native.Uint32(data[8:]), Port: Native.Uint32(data[12:])}
		if err := f(h, data[unix.SizeofNlMsghdr:size]); err != nil {
			return err
		}
		data = data[min(align(size), len(data)):]
	}
	return nil
}

// ackError is nil for an acknowledgement, else the errno with the kernel's own words (NLMSGERR_ATTR_MSG) if it gave any.
func ackError(h Header, body []byte) error {
	if len(body) < 4 {
		return errors.New("netlink: short answer")
	}
	code := int32(Native.Uint32(body))
	if code == 0 {
		return nil
	}
	err := unix.Errno(-code)
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > 4+unix.SizeofNlMsghdr {
		if text := Attrs(body[4+unix.SizeofNlMsghdr:])[unix.NLMSGERR_ATTR_MSG]; len(text) > 1 {
			return fmt.Errorf("%w (%s)", err, text[:len(text)-1])
		}
	}
	return err
}

// Port is what the kernel repeats in notifications of what this socket caused.
func (s *Socket) Port() uint32 { return s.port }

// Requests counts what was sent.
func (s *Socket) Requests() uint32 { return s.seq }
