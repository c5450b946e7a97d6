// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/balance"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/engine/proxy/probe"
)

// front is the proxy's side of one portal: a port, a socket on it, and the endpoints behind. Its socket is open to all
// while there are endpoints; otherwise it is held on loopback, so that the port stays ours and clients of the portal are
// refused by the kernel, as they should be.
type front struct {
	p      *Proxy
	key    portal.Key
	target atomic.Pointer[target]
	count  counters
	failed atomic.Int64 // when a connection last found no endpoint, in Unix nanoseconds; 0: all is calm

	// Guarded by Proxy.mu.
	port    uint16
	network string // "tcp4" and so on
	socket  io.Closer
	opened  bool      // socket is open to all, not only held
	udp     *sessions // of the open UDP socket; nil: none
}

// target is what stands behind a portal at one moment. It is immutable: Apply swaps it whole.
type target struct {
	portal   portal.Portal
	inside   []netip.Prefix // where clients of this node are; empty: everywhere
	tuning   tuning.Settings
	backends []*backend    // all of them
	in, out  balance.Group // those for clients on this node, and for others
	picker   balance.Picker
}

// retarget makes new connections go to the endpoints of want, and keeps what is known of those that stay.
func (f *front) retarget(want portal.Portal, inside []netip.Prefix, tune tuning.Settings) {
	old := f.target.Load()
	if old != nil && old.tuning == tune && old.portal.Equal(want) && slices.Equal(old.inside, inside) {
		return
	}
	next := &target{portal: want, inside: inside, tuning: tune}
	known := map[netip.AddrPort]*backend{}
	var since time.Time // the first endpoints of a portal have no one to leave the work to while they warm up
	if old != nil {
		since = time.Now()
		for _, b := range old.backends {
			if probe.Settings(old.tuning) == probe.Settings(tune) {
				known[b.Addr] = b
			} else {
				b.retire()
			}
		}
		if old.tuning.Balance == tune.Balance && old.tuning.SlowStart == tune.SlowStart && old.tuning.Weights == tune.Weights && old.portal.Affinity == want.Affinity {
			next.picker = old.picker
		}
	}
	if next.picker == nil {
		next.picker = balance.NewPicker(tune, want.Affinity)
	}
	used := map[*backend]bool{}
	resolve := func(addrs []netip.AddrPort) []*balance.Endpoint {
		out := make([]*balance.Endpoint, len(addrs))
		for i, addr := range addrs {
			b, ok := known[addr]
			if !ok {
				b = f.newBackend(addr, since, tune)
				known[addr] = b
			}
			b.Weight.Store(int64(tune.Weights.Of(addr.Addr())))
			out[i], used[b] = &b.Endpoint, true
		}
		return out
	}
	next.in = balance.NewGroup(resolve(want.Endpoints), tune.Balance)
	next.out = next.in
	if want.Outside != nil {
		next.out = balance.NewGroup(resolve(want.Outside.Endpoints), tune.Balance)
	}
	next.backends = slices.Collect(maps.Keys(used))
	for _, b := range known {
		if !used[b] {
			b.retire()
		}
	}
	f.target.Store(next)
	if f.udp != nil {
		f.udp.keep(next)
	}
}

// has reports whether the endpoint is one of those behind the portal.
func (t *target) has(e *balance.Endpoint) bool {
	return slices.Contains(t.in.All, e) || slices.Contains(t.out.All, e)
}

// admits reports whether the client may come (loadBalancerSourceRanges).
func (t *target) admits(client netip.Addr) bool {
	return len(t.portal.Sources) == 0 || within(t.portal.Sources, client)
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// close is stop for good: nobody asks the endpoints how they are any more.
func (f *front) close() {
	f.stop()
	for _, b := range f.target.Load().backends {
		b.retire()
	}
}

// connect opens a connection to an endpoint, trying another one each time until the timeouts are used up.
// The caller counts the endpoint as less active when it is done.
func (f *front) connect(t *target, client netip.Addr) (*net.TCPConn, *balance.Endpoint, error) {
	var tried []*balance.Endpoint
	err, waited := errNoEndpoints, false
	for attempt, timeout := range t.tuning.Dial {
		if timeout == 0 || f.p.ctx.Err() != nil {
			break
		}
		if attempt > 0 {
			f.count.retries.Add(1)
			t = f.target.Load() // the endpoint that failed may be gone by now
		}
		b := t.choose(client, tried)
		if b == nil {
			break
		}
		b.Active.Add(1)
		var conn *net.TCPConn
		if conn, err = dial(f.p.ctx, b.Addr, timeout); err == nil {
			b.Worked()
			return conn, b, nil
		}
		b.Active.Add(-1)
		if ours(err) {
			if waited {
				break // to wait longer would only keep what others want
			}
			waited = true
			sleep(f.p.ctx, timeout)
			continue
		}
		if b.Refused(t.tuning, time.Now()) {
			f.count.ejected.Add(1)
			f.p.o.Log.Warn("endpoint rests", "service", t.portal.Service.String(), "endpoint", b.Addr.String(), "error", err)
		}
		tried = append(tried, b)
	}
	return nil, nil, err
}

var errNoEndpoints = errors.New("no endpoints")

// ours reports whether a connect failed for want of something on this node, which no endpoint can be blamed for.
func ours(err error) bool {
	for _, e := range []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.Is(err, context.Canceled)
}

func loopback(like netip.Addr) netip.Addr {
	if like.Is6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// dial connects without binding first, which DialTCP would do: a port that connect(2) chooses may be in use towards other
// endpoints, one that bind(2) chooses may not, and a node would be out of ports after 28,000 connections to all together.
func dial(ctx context.Context, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: timeout, KeepAlive: -1, Control: keepAlive}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// keepAlive makes the kernel ask silent peers every 15 s whether they still live, and give up after nine times. Accepted
// sockets inherit it: Go's own way to set it is four system calls for each connection.
func keepAlive(_, _ string, c syscall.RawConn) error {
	const every = 15
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt", errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, every),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, every),
		))
	})
	return errors.Join(cerr, err)
}
