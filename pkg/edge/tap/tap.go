// SPDX-License-Identifier: Apache-2.0

// Package tap sees the frames that pass an interface, as tcpdump does: packet sockets (packet(7)), with the kernel's times.
package tap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tap is one interface's frames. It belongs to the namespace of the thread that opened it, and may be read from anywhere.
type Tap struct {
	fd  int
	oob []byte
}

// tick is how long Read waits for a frame.
const tick = 20 * time.Millisecond

// Open begins to see what passes the interface of the calling thread's namespace.
func Open(link string) (*Tap, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return nil, fmt.Errorf("tap %s: %w", link, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // sees nothing until it is bound
	if err != nil {
		return nil, fmt.Errorf("tap %s: %w", link, err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil { // the machine's root only
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as the machine allows
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: int64(tick / time.Microsecond)}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s: %w", link, err), unix.Close(fd))
	}
	return &Tap{fd: fd, oob: make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{}))))}, nil
}

// Read puts the next frame into b, as much as fits, and returns its length on the wire and when the kernel saw it. The
// error is os.ErrDeadlineExceeded when none came within 20 ms.
func (t *Tap) Read(b []byte) (n, length int, at time.Time, err error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(t.fd, b, t.oob, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, 0, time.Time{}, os.ErrDeadlineExceeded
		case err != nil:
			return 0, 0, time.Time{}, fmt.Errorf("tap: %w", err)
		}
		return min(n, len(b)), n, stamp(t.oob[:oobn]), nil
	}
}

// stamp is the kernel's time of a frame, or now.
func stamp(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		if err == nil && m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))) //nolint:gosec // a timespec
		}
	}
	return time.Now()
}

// Lost is how many frames did not fit into the buffer since the last time it was asked.
func (t *Tap) Lost() (int, error) {
	s, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("tap: %w", err)
	}
	return int(s.Drops), nil
}

// Close ends it. Nobody may be reading.
func (t *Tap) Close() error { return unix.Close(t.fd) }
