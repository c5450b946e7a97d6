// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/bgp/dial"
	"github.com/l3edge/l3edge/pkg/edge/bgp/reach"
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
		reach.HandIn(ctx, s.srv, conn)
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
		return errors.Join(c.Control(func(fd uintptr) { err = dial.Prepare(int(fd), p.Settings, addr, say.MaxTTL) }), err)
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
	err = dial.FirstByte(conn.(*net.TCPConn), openTimeout)
	if err != nil && !errors.Is(err, dial.ErrSilent) {
		return nil, errors.Join(fmt.Errorf("%s %w", conn.RemoteAddr(), err), conn.Close())
	}
	return conn, nil
}
