// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// front is the proxy's side of one portal: a port, a socket on it, and the endpoints behind. Its socket is open to all
// while there are endpoints; otherwise it is held on loopback, so that the port stays ours and clients of the portal are
// refused by the kernel, as they should be.
type front struct {
	p      *Proxy
	key    portal.Key
	target atomic.Pointer[target]
	count  counters

	// Guarded by Proxy.mu.
	port   uint16
	socket io.Closer
	opened bool      // socket is open to all, not only held
	udp    *sessions // of the open UDP socket; nil: none
}

// target is what stands behind a portal at one moment. It is immutable: Apply swaps it whole.
type target struct {
	service  service.PortName
	backends []*backend
	picker   picker
}

// backend is one endpoint of one portal with what the proxy knows of it. It lives as long as the endpoint is listed.
type backend struct {
	addr   netip.AddrPort
	active atomic.Int64 // connections open now
}

// retarget makes new connections go to the endpoints of want, and keeps what is known of those that stay.
func (f *front) retarget(want portal.Portal) {
	next := &target{service: want.Service, picker: new(roundRobin)}
	known := map[netip.AddrPort]*backend{}
	if old := f.target.Load(); old != nil {
		next.picker = old.picker
		for _, b := range old.backends {
			known[b.addr] = b
		}
	}
	for _, addr := range want.Endpoints {
		b, ok := known[addr]
		if !ok {
			b = &backend{addr: addr}
		}
		next.backends = append(next.backends, b)
	}
	f.target.Store(next)
	if f.udp != nil {
		f.udp.keep(next.backends)
	}
}

// listen opens the socket to all, or only holds the port, and returns the port: the wanted one if it is not 0 and free.
func (f *front) listen(port uint16, open bool) (uint16, error) {
	if f.socket != nil && f.opened == open {
		return f.port, nil
	}
	f.stop()
	err := f.bind(port, open)
	if port != 0 && errors.Is(err, syscall.EADDRINUSE) {
		f.p.o.Log.Warn("proxy port is taken, choosing another", "portal", f.key.String(), "proxyPort", port)
		err = f.bind(0, open)
	}
	return f.port, err
}

func (f *front) bind(port uint16, open bool) error {
	addr, family := netip.IPv4Unspecified(), "4"
	if f.key.Addr.Is6() {
		addr, family = netip.IPv6Unspecified(), "6"
	}
	if !open {
		addr = loopback(f.key.Addr)
	}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false) // splice(2) does not know it
	at := netip.AddrPortFrom(addr, port).String()
	if f.key.Protocol == service.UDP {
		lc.Control = wantPacketInfo
		pc, err := lc.ListenPacket(f.p.ctx, "udp"+family, at)
		if err != nil {
			return err
		}
		f.adopt(pc, pc.LocalAddr(), open)
		if open {
			u := &sessions{m: map[netip.AddrPort]*session{}}
			f.udp = u
			f.p.live.Go(func() { f.serveUDP(pc.(*net.UDPConn), u) })
		}
		return nil
	}
	l, err := lc.Listen(f.p.ctx, "tcp"+family, at)
	if err != nil {
		return err
	}
	f.adopt(l, l.Addr(), open)
	if open {
		f.p.live.Go(func() { f.serveTCP(l.(*net.TCPListener)) })
	}
	return nil
}

func (f *front) adopt(socket io.Closer, local net.Addr, open bool) {
	f.socket, f.opened = socket, open
	f.port = netip.MustParseAddrPort(local.String()).Port()
}

// stop gives up the socket: nothing new is accepted, TCP connections under way go on, UDP sessions end.
func (f *front) stop() {
	if f.socket != nil {
		_ = f.socket.Close() // its goroutine returns; there is nothing else to lose
	}
	f.socket, f.udp = nil, nil
}

// connect opens a connection to an endpoint, trying another one each time until the timeouts are used up.
// The caller releases the backend with done.
func (f *front) connect(client netip.Addr) (*net.TCPConn, *backend, error) {
	var tried []*backend
	var errs []error
	for attempt, timeout := range f.p.o.DialTimeouts {
		b := f.target.Load().choose(client, tried)
		if b == nil {
			return nil, nil, errors.Join(append(errs, errNoEndpoints)...)
		}
		if attempt > 0 {
			f.count.retries.Add(1)
		}
		b.active.Add(1)
		conn, err := dial(f.p.ctx, b.addr, timeout)
		if err == nil {
			return conn, b, nil
		}
		b.active.Add(-1)
		tried, errs = append(tried, b), append(errs, err)
		if f.p.ctx.Err() != nil {
			break
		}
	}
	return nil, nil, fmt.Errorf("no endpoint took the connection in %d attempts: %w", len(errs), errors.Join(errs...))
}

var errNoEndpoints = errors.New("no endpoints")

func loopback(like netip.Addr) netip.Addr {
	if like.Is6() {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// choose asks the picker for an endpoint that has not been tried; when all have been, the round begins again.
// It returns nil when there are no endpoints.
func (t *target) choose(client netip.Addr, tried []*backend) *backend {
	from := t.backends
	if len(tried) > 0 {
		from = without(t.backends, tried[len(tried)-len(tried)%max(len(t.backends), 1):])
	}
	if len(from) == 0 {
		return nil
	}
	return t.picker.pick(client, from)
}

func dial(ctx context.Context, to netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: timeout}
	return d.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
}
