// SPDX-License-Identifier: Apache-2.0

// Package dial is a connection to a BGP peer up to its first byte: what must be set on the socket before, and what an answer
// that is no OPEN means.
package dial

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/peer"
)

// Prepare sets what must be on a socket before it connects.
func Prepare(fd int, p peer.Settings, addr netip.Addr, maxTTL int) error {
	level, ttl, least := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	if addr.Is6() {
		level, ttl, least = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
	}
	err := unix.SetsockoptInt(fd, level, ttl, maxTTL) // so that the peer may use GTSM
	if p.GTSM {
		err = errors.Join(err, unix.SetsockoptInt(fd, level, least, maxTTL))
	}
	if p.Password == "" {
		return err
	}
	return errors.Join(err, sign(fd, addr, p.Password))
}

// sign has what goes to and comes from an address carry a key's signature (TCP MD5, RFC 2385).
func sign(fd int, addr netip.Addr, key string) error {
	sig := unix.TCPMD5Sig{Keylen: uint16(len(key))}
	sig.Addr.Family = unix.AF_INET
	at := sig.Addr.Data[2:] // struct sockaddr_in: port, address
	if addr.Is6() {
		sig.Addr.Family = unix.AF_INET6
		at = sig.Addr.Data[6:] // struct sockaddr_in6: port, flow, address
	}
	copy(at, addr.AsSlice())
	copy(sig.Key[:], key)
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); err != nil {
		return fmt.Errorf("sign with TCP MD5: %w", err)
	}
	return nil
}

// notification is a message's type (RFC 4271 section 4.1).
const notification = 3

// ErrSilent says that the peer has said nothing yet: it may wait for us to begin.
var ErrSilent = errors.New("no OPEN yet")

// FirstByte waits for something to read without reading it, and looks at what it is.
func FirstByte(conn *net.TCPConn, patience time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		head := make([]byte, 21) // a message's header, and a NOTIFICATION's code and subcode (RFC 4271 section 4)
		n, _, err := unix.Recvfrom(int(fd), head, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			return false
		case err != nil:
			peekErr = fmt.Errorf("closed the connection before its OPEN: %w", err)
		case n == 0:
			peekErr = fmt.Errorf("closed the connection before its OPEN: %w", io.EOF)
		case n == len(head) && head[18] == notification:
			peekErr = fmt.Errorf("refused the session: NOTIFICATION %d/%d", head[19], head[20])
		}
		return true
	})
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		peekErr, err = ErrSilent, nil
	}
	return errors.Join(err, peekErr, conn.SetReadDeadline(time.Time{}))
}
