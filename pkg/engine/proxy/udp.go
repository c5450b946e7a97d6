// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/balance"
)

// session is one client's UDP exchange with one endpoint, over a socket of its own.
type session struct {
	backend *balance.Endpoint
	idle    time.Duration
	conn    *net.UDPConn // connected to the endpoint
	reply   []byte       // control message that makes the proxy answer from the address that the client's packets came to
	seen    atomic.Int64 // nanoseconds of the last packet, either way
}

// sessions are the live ones of one socket, by client. Only the socket's own goroutine adds to them.
type sessions struct {
	crowded bool // it has been said that there are too many; the socket's own goroutine's

	mu sync.Mutex
	m  map[netip.AddrPort]*session
}

// keep closes the sessions whose endpoint is not one of the target's; nil: all.
func (s *sessions) keep(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.m {
		if t == nil || !t.has(one.backend) {
			_ = one.conn.Close() // its reader takes it off the map
		}
	}
}

func (s *sessions) get(client netip.AddrPort) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[client]
}

// drop forgets a session, unless the client has a newer one already.
func (s *sessions) drop(client netip.AddrPort, old *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[client] == old {
		delete(s.m, client)
	}
	_ = old.conn.Close()
}

// maxDatagram is the largest UDP payload there is.
const maxDatagram = 65535

var datagrams = sync.Pool{New: func() any { b := make([]byte, maxDatagram); return &b }}

// serveUDP passes packets of clients on until the socket closes; the sessions end with it.
func (f *front) serveUDP(pc *net.UDPConn, u *sessions) {
	defer u.keep(nil)
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, oobn, _, client, err := pc.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for some earlier reply: that client is gone
		}
		// A session that breaks at the first write (its endpoint refused an earlier packet) is replaced once.
		for range 2 {
			s := f.session(pc, u, client, oob[:oobn])
			if s == nil {
				break
			}
			s.seen.Store(time.Now().UnixNano())
			if _, err := s.conn.Write(buf[:n]); err == nil {
				f.count.in.Add(uint64(n)) //nolint:gosec // never negative
				break
			}
			u.drop(client, s)
		}
	}
}

// session finds the client's session or opens one. It returns nil, and counts a failure, when none can be had.
func (f *front) session(pc *net.UDPConn, u *sessions, client netip.AddrPort, oob []byte) *session {
	if s := u.get(client); s != nil {
		return s
	}
	t := f.target.Load()
	if !t.admits(client.Addr()) {
		f.count.limited.Add(1)
		return nil
	}
	b := t.choose(client.Addr(), nil)
	if b == nil {
		f.count.failed.Add(1)
		return nil
	}
	f.makeRoom(u, t)
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(b.Addr))
	if err != nil {
		f.count.failed.Add(1)
		return nil
	}
	s := &session{backend: b, idle: t.tuning.UDPIdle, conn: conn, reply: replyFrom(oob)}
	s.seen.Store(time.Now().UnixNano())
	u.put(client, s)
	if !f.target.Load().has(b) {
		_ = conn.Close() // Apply took the endpoint away before it could see this session
	}
	f.count.accepted.Add(1)
	f.count.active.Add(1)
	b.Active.Add(1)
	f.p.live.Go(func() {
		defer context.AfterFunc(f.p.ctx, func() { _ = conn.Close() })()
		f.replies(pc, client, s)
		u.drop(client, s)
		f.count.active.Add(-1)
		b.Active.Add(-1)
	})
	return s
}

// makeRoom ends the session that has been silent for longest if there are as many as there may be: its client is the
// likeliest not to miss it, and opens another with its next packet if it does.
func (f *front) makeRoom(u *sessions, t *target) {
	limit := f.p.o.UDPSessions
	if n := t.tuning.MaxConns; n > 0 {
		limit = n
	}
	n := u.size()
	for ; n >= limit; n-- {
		u.evict()
		f.count.limited.Add(1)
		if !u.crowded {
			u.crowded = true
			f.p.o.Log.Warn("too many UDP clients, those silent for longest lose their endpoint", "service", t.portal.Service.String(), "portal", f.key.String(), "limit", limit)
		}
	}
	u.crowded = u.crowded && n >= limit/2
}

func (s *sessions) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var client netip.AddrPort
	var oldest *session
	for c, one := range s.m {
		if oldest == nil || one.seen.Load() < oldest.seen.Load() {
			client, oldest = c, one
		}
	}
	if oldest != nil {
		delete(s.m, client)
		_ = oldest.conn.Close() // its reader ends
	}
}

func (s *sessions) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m)
}

func (s *sessions) put(client netip.AddrPort, one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[client] = one
}

// replies carries the endpoint's packets back until the session is idle for too long, closed or broken.
func (f *front) replies(pc *net.UDPConn, client netip.AddrPort, s *session) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	in := newReceiver(raw, &datagrams)
	for {
		idleAt := time.Unix(0, s.seen.Load()).Add(s.idle)
		if err := s.conn.SetReadDeadline(idleAt); err != nil {
			return
		}
		buf, n, err := in.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Unix(0, s.seen.Load()).Add(s.idle).After(time.Now()) {
			continue // the client has sent meanwhile
		}
		if err != nil {
			return
		}
		s.seen.Store(time.Now().UnixNano())
		_, _, err = pc.WriteMsgUDPAddrPort((*buf)[:n], s.reply, client)
		datagrams.Put(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		f.count.out.Add(uint64(n)) //nolint:gosec // never negative
	}
}

// wantPacketInfo asks the kernel to tell for each packet to which local address it came (ip(7), ipv6(7)).
func wantPacketInfo(network, _ string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if network == "udp6" {
			err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1))
			return
		}
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1))
	})
	return errors.Join(cerr, err)
}

// replyFrom turns the packet information of a received packet into that of its answers: the same local address as
// source, so that the rule's address translation recognises them, and whatever interface the routes say.
func replyFrom(oob []byte) []byte {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		return nil
	}
	out := slices.Clone(oob)
	switch m := msgs[0]; {
	case m.Header.Level == syscall.IPPROTO_IP && len(m.Data) >= syscall.SizeofInet4Pktinfo:
		clear(out[syscall.CmsgLen(0):][:4]) // ipi_ifindex comes first
	case m.Header.Level == syscall.IPPROTO_IPV6 && len(m.Data) >= syscall.SizeofInet6Pktinfo:
		clear(out[syscall.CmsgLen(0)+16:][:4]) // ipi6_ifindex comes after the address
	default:
		return nil
	}
	return out
}
