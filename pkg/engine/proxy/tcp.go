// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// serveTCP accepts until the listener closes. A dial that takes its time delays nobody else: each connection has its
// own goroutine from the start.
func (f *front) serveTCP(l *net.TCPListener) {
	var pause time.Duration
	for {
		client, err := l.AcceptTCP()
		switch {
		case err == nil:
			pause = 0
			f.p.live.Go(func() { f.carry(client) })
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of file descriptors, mostly: wait for some to come free
			if pause == 0 {
				f.p.o.Log.Error("cannot accept", "portal", f.key.String(), "error", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			f.p.rest(pause)
		}
	}
}

// rest waits for d or for the end of all connections.
func (p *Proxy) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
}

// carry takes one client's connection to an endpoint and copies both ways until both have ended.
func (f *front) carry(client *net.TCPConn) {
	f.count.accepted.Add(1)
	f.count.active.Add(1)
	defer f.count.active.Add(-1)
	from := client.RemoteAddr().(*net.TCPAddr).AddrPort()
	server, b, err := f.connect(from.Addr())
	if err != nil {
		f.count.failed.Add(1)
		f.p.o.Log.Warn("cannot connect", "portal", f.key.String(), "service", f.target.Load().service.String(), "client", from.String(), "error", err)
		reset(client)
		return
	}
	defer b.active.Add(-1)
	stop := context.AfterFunc(f.p.ctx, func() { reset(client); reset(server) })
	defer stop()
	up := make(chan struct{})
	go func() {
		pipe(server, client, &f.count.in)
		close(up)
	}()
	pipe(client, server, &f.count.out)
	<-up
	_ = client.Close() // both directions are done: an error would tell nothing
	_ = server.Close()
}

// pipe copies src to dst until src ends (then dst's peer is told so, and the other direction goes on) or either breaks
// (then both are reset, so that no peer takes a broken stream for a whole one). Between two TCP connections io.Copy is
// splice(2): the bytes never come to user space.
func pipe(dst, src *net.TCPConn, bytes *atomic.Uint64) {
	n, err := io.Copy(dst, src)
	bytes.Add(uint64(n)) //nolint:gosec // never negative
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		reset(src)
		reset(dst)
	}
}

// reset closes a connection so that its peer sees a reset, not an orderly end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only on a closed connection
	_ = c.Close()
}
