// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/l3edge/l3edge/pkg/core/service"
)

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
	at := netip.AddrPortFrom(addr, port)
	if f.key.Protocol == service.UDP {
		return f.bindUDP("udp"+family, at, open)
	}
	l, err := f.listenTCP("tcp"+family, at, open)
	if err != nil {
		return err
	}
	f.adopt(l, l.Addr(), open)
	if open {
		f.p.live.Go(func() { f.serveTCP(l) })
	}
	return nil
}

// bindUDP leaves nothing with the Keeper: a UDP client that gets no answer asks again.
func (f *front) bindUDP(network string, at netip.AddrPort, open bool) error {
	lc := net.ListenConfig{Control: wantPacketInfo}
	pc, err := lc.ListenPacket(f.p.ctx, network, at.String())
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

// listenTCP takes over the socket that an earlier process left for the port, or makes one.
func (f *front) listenTCP(network string, at netip.AddrPort, open bool) (*net.TCPListener, error) {
	if kept := f.p.o.Keeper.Take(keepName(network, at.Port())); kept != nil {
		defer kept.Close() //nolint:errcheck // FileListener has made a copy
		l, err := net.FileListener(kept)
		if tl, ok := l.(*net.TCPListener); err == nil && ok {
			f.network = network
			if open {
				return tl, nil
			}
			f.deafen(tl, at.Port())
			_ = tl.Close()
		}
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: keepAlive}
	lc.SetMultipathTCP(false) // splice(2) does not know it
	l, err := lc.Listen(f.p.ctx, network, at.String())
	if err != nil {
		return nil, err
	}
	f.network = network
	tl := l.(*net.TCPListener)
	if open {
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		if err := f.p.o.Keeper.Put(keepName(network, port), tl); err != nil {
			f.p.o.Log.Warn("cannot keep socket over a restart", "portal", f.key.String(), "error", err)
		}
	}
	return tl, nil
}

func keepName(network string, port uint16) string { return fmt.Sprintf("proxy-%s-%d", network, port) }

// deafen makes a listening socket refuse, whoever else has it open, and takes it back from the Keeper.
func (f *front) deafen(l *net.TCPListener, port uint16) {
	if raw, err := l.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RD) }) // tcp(7): back from LISTEN to CLOSE
	}
	if err := f.p.o.Keeper.Drop(keepName(f.network, port)); err != nil {
		f.p.o.Log.Warn("cannot take back kept socket", "portal", f.key.String(), "error", err)
	}
}

func (f *front) adopt(socket io.Closer, local net.Addr, open bool) {
	f.socket, f.opened = socket, open
	f.port = netip.MustParseAddrPort(local.String()).Port()
}

// leave gives up the socket, but not its copy at the Keeper: the next process will serve who comes meanwhile.
func (f *front) leave() {
	if f.socket != nil {
		_ = f.socket.Close() // its goroutine returns; there is nothing else to lose
	}
	f.socket, f.udp = nil, nil
}

// stop gives up the socket: nothing new is accepted, TCP connections under way go on, UDP sessions end.
func (f *front) stop() {
	if l, ok := f.socket.(*net.TCPListener); ok && f.opened {
		f.deafen(l, f.port)
	}
	f.leave()
}
