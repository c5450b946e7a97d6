// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// serveTCP accepts until the listener closes. A dial that takes its time delays nobody else: each connection has its
// own goroutine from the start.
func (f *front) serveTCP(l *net.TCPListener) {
	var pause time.Duration
	var said time.Time
	for {
		client, err := l.AcceptTCP()
		switch {
		case err == nil:
			pause = 0
			f.p.live.Go(func() { f.carry(client) })
		case errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EINVAL): // closed, or not listening any more
			return
		default: // out of file descriptors, mostly: wait for some to come free
			if time.Since(said) > calm {
				f.p.o.Log.Error("cannot accept", "portal", f.key.String(), "error", err)
			}
			said = time.Now()
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			sleep(f.p.ctx, pause)
		}
	}
}

// carry takes one client's connection to an endpoint and copies both ways until both have ended.
func (f *front) carry(client *net.TCPConn) {
	t := f.target.Load()
	f.count.accepted.Add(1)
	here, all := f.count.active.Add(1), f.p.open.Add(1)
	defer f.count.active.Add(-1)
	defer f.p.open.Add(-1)
	from := client.RemoteAddr().(*net.TCPAddr).AddrPort()
	if over(here, t.tuning.MaxConns) || over(all, f.p.o.MaxConns) {
		f.count.limited.Add(1)
		f.note(errLimit, from)
		reset(client)
		return
	}
	if !t.admits(from.Addr()) {
		f.count.limited.Add(1)
		reset(client)
		return
	}
	server, b, err := f.connect(t, from.Addr())
	if err == nil && t.tuning.ProxyProtocol > 0 {
		if _, err = server.Write(header(t.tuning.ProxyProtocol, from, netip.AddrPortFrom(f.key.Addr, f.key.Port))); err != nil {
			b.Active.Add(-1)
			reset(server)
		}
	}
	f.note(err, from)
	if err != nil {
		f.count.failed.Add(1)
		reset(client)
		return
	}
	defer b.Active.Add(-1)
	stop := context.AfterFunc(f.p.ctx, func() { reset(client); reset(server) })
	defer stop()
	down := make(chan struct{})
	go func() {
		pipe(client, server, &f.count.out)
		close(down)
	}()
	pipe(server, client, &f.count.in) // here and now: most clients have asked already
	<-down
	_ = client.Close() // both directions are done: an error would tell nothing
	_ = server.Close()
}

func over(n int64, limit int) bool { return limit > 0 && n > int64(limit) }

var errLimit = errors.New("too many connections")

// calm is how long nothing must have failed before a failure is news again.
const calm = 5 * time.Second

// note logs the first failure, and the first success after calm: in between, counters tell.
func (f *front) note(err error, client netip.AddrPort) {
	log := func() *slog.Logger {
		return f.p.o.Log.With("portal", f.key.String(), "service", f.target.Load().portal.Service.String())
	}
	if err != nil {
		if f.failed.Swap(time.Now().UnixNano()) == 0 {
			log().Warn("cannot connect", "client", client.String(), "error", err)
		}
		return
	}
	if last := f.failed.Load(); last != 0 && time.Since(time.Unix(0, last)) > calm && f.failed.CompareAndSwap(last, 0) {
		log().Info("can connect again")
	}
}

// pipe copies src to dst until src ends (then dst's peer is told so, and the other direction goes on) or either breaks
// (then both are reset, so that no peer takes a broken stream for a whole one).
func pipe(dst, src *net.TCPConn, bytes *atomic.Uint64) {
	n, err := relay(dst, src)
	bytes.Add(uint64(n)) //nolint:gosec // never negative
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		reset(src)
		reset(dst)
	}
}

// A stream that fills bulkAfter chunks in a row goes on by splice(2).
const (
	chunk     = 16 << 10
	bulkAfter = 4
)

var chunks = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}

// relay copies src to dst until src ends. Requests and answers go by way of memory: that takes fewer system calls than
// splice(2), and neither descriptors for its pipe nor, while nothing comes, memory. Of a stream that keeps the chunks full
// the bytes never come to user space: between two TCP connections io.Copy is splice(2).
func relay(dst, src *net.TCPConn) (n int64, err error) {
	raw, err := src.SyscallConn()
	if err != nil {
		return 0, err
	}
	in := newReceiver(raw, &chunks)
	for full := 0; full < bulkAfter; {
		buf, got, err := in.receive()
		if err != nil {
			return n, err
		}
		sent := 0
		if got > 0 {
			sent, err = dst.Write((*buf)[:got])
		}
		chunks.Put(buf)
		n += int64(sent)
		if got == 0 || err != nil {
			return n, err
		}
		if full++; got < chunk {
			full = 0
		}
	}
	rest, err := io.Copy(dst, src)
	return n + rest, err
}

// reset closes a connection so that its peer sees a reset, not an orderly end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only on a closed connection
	_ = c.Close()
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
