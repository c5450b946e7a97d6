// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/bgp/say"
)

const (
	dialTimeout = 3 * time.Second
	openTimeout = 5 * time.Second // for the peer's OPEN; one that waits for ours first gets it after this
)

// connect dials the peer until a second has passed since its name was looked up and there is no session, or ctx ends.
// It returns how long to wait before the next attempt.
func (s *Speaker) connect(ctx context.Context, p Peer, addr netip.Addr, wait time.Duration) time.Duration {
	for lookedUp := time.Now(); time.Since(lookedUp) < most(p); {
		if !s.sessions.Await(ctx, addr) || s.sessions.MustRenew(addr) {
			return wait
		}
		conn, err := s.dial(ctx, p, addr)
		if ctx.Err() != nil {
			return wait
		}
		if err != nil {
			s.report(p.Name, Active, err.Error())
			wait = pause(ctx, wait, most(p))
			continue
		}
		wait = retryFirst
		if s.sessions.State(addr) != Active { // the peer has connected to us meanwhile
			_ = conn.Close()
			continue
		}
		s.handIn(ctx, conn)
		taken, cancel := context.WithTimeout(ctx, openTimeout)
		s.sessions.AwaitTaken(taken, addr)
		cancel()
	}
	return wait
}

// dial connects and waits until the peer has begun its OPEN. A peer that accepts and closes (it is restarting, or
// rests after a failure), or says no at once, is thus an ordinary failed attempt.
func (s *Speaker) dial(ctx context.Context, p Peer, addr netip.Addr) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = prepare(int(fd), p, addr) }), err)
	}}
	if from := s.self.From(p.Settings, addr); from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(or(p.Port, Port))))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = firstByte(conn.(*net.TCPConn))
	if err != nil && !errors.Is(err, errSilent) {
		return nil, errors.Join(fmt.Errorf("%s %w", conn.RemoteAddr(), err), conn.Close())
	}
	return conn, nil
}

// prepare sets what must be on a socket before it connects.
func prepare(fd int, p Peer, addr netip.Addr) error {
	level, ttl, least := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_MINTTL
	if addr.Is6() {
		level, ttl, least = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
	}
	err := unix.SetsockoptInt(fd, level, ttl, say.MaxTTL) // so that the peer may use GTSM
	if p.GTSM {
		err = errors.Join(err, unix.SetsockoptInt(fd, level, least, say.MaxTTL))
	}
	if p.Password == "" {
		return err
	}
	sig := unix.TCPMD5Sig{Keylen: uint16(len(p.Password))}
	sig.Addr.Family = unix.AF_INET
	at := sig.Addr.Data[2:] // struct sockaddr_in: port, address
	if addr.Is6() {
		sig.Addr.Family = unix.AF_INET6
		at = sig.Addr.Data[6:] // struct sockaddr_in6: port, flow, address
	}
	copy(at, addr.AsSlice())
	copy(sig.Key[:], p.Password)
	if md5 := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); md5 != nil {
		err = errors.Join(err, fmt.Errorf("sign with TCP MD5: %w", md5))
	}
	return err
}

// notification is a message's type (RFC 4271 section 4.1).
const notification = 3

var errSilent = errors.New("no OPEN yet")

// firstByte waits for something to read without reading it, and looks at what it is.
func firstByte(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(openTimeout)); err != nil {
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
		peekErr, err = errSilent, nil
	}
	return errors.Join(err, peekErr, conn.SetReadDeadline(time.Time{}))
}
