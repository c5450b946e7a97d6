// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// stream sends a numbered packet a millisecond from one pod address to another and counts what arrives.
type stream struct {
	name       string
	sent, seen uint64
	missing    []uint64
	stop       context.CancelFunc
	wg         sync.WaitGroup
	server     net.PacketConn
}

func newStream(t *testing.T, name string, a *host, from string, b *host, to string) *stream {
	t.Helper()
	s := &stream{name: name}
	nstest.Do(t, b.Handle, func() (err error) { s.server, err = net.ListenPacket("udp", net.JoinHostPort(to, "9")); return err })
	var c net.Conn
	nstest.Do(t, a.Handle, func() (err error) {
		c, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: 9})
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.wg.Go(func() {
		defer c.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			_, _ = c.Write(binary.BigEndian.AppendUint64(nil, s.sent)) // without a route it is lost, and counted
			s.sent++
		}
	})
	s.wg.Go(func() {
		buf := make([]byte, 8)
		for {
			if _, _, err := s.server.ReadFrom(buf); err != nil {
				return
			}
			n := binary.BigEndian.Uint64(buf)
			for ; s.seen < n; s.seen++ {
				s.missing = append(s.missing, s.seen)
			}
			s.seen = n + 1
		}
	})
	t.Cleanup(func() { cancel(); _ = s.server.Close() })
	return s
}

// lost ends the stream.
func (s *stream) lost(t *testing.T) int {
	t.Helper()
	s.stop()
	time.AfterFunc(200*time.Millisecond, func() { _ = s.server.Close() }) // what is under way arrives
	s.wg.Wait()
	lost := len(s.missing) + int(s.sent-s.seen)
	if s.sent < 20 {
		t.Errorf("%s: only %d packets sent", s.name, s.sent)
	}
	t.Logf("%s: %d of %d lost %v", s.name, lost, s.sent, head(s.missing))
	return lost
}

func head(x []uint64) []uint64 { return x[:min(len(x), 5)] }

// TestRestartsLoseNothing ends a node's router in every way that is not a stop, under traffic in both directions.
func TestRestartsLoseNothing(t *testing.T) {
	ends := []struct {
		name    string
		signals []syscall.Signal
	}{
		{"a crash", []syscall.Signal{syscall.SIGKILL}},
		{"a hand-over", []syscall.Signal{syscall.SIGUSR2}},
		{"a stop that keeps", []syscall.Signal{syscall.SIGTERM}},
		{"two crashes in a row", []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL}},
	}
	for _, r := range routers {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			l := newLab(t)
			r.start(t, l.mls)
			l.startNode(t, l.n1, "--on-stop=keep")
			l.startNode(t, l.n3)
			synced := func() bool {
				st := l.n1.status(t)
				return len(st.Sessions) == 1 && st.Sessions[0].Synced && l.mls.has(t, "10.10.10.0/24") && l.n1.has(t, "10.10.30.0/24")
			}
			within(t, promised, "routes", func() bool { return synced() && l.n3.has(t, "10.10.10.0/24") })
			for _, end := range ends {
				in := newStream(t, end.name+", inwards", l.n3, "10.10.30.1", l.n1, "10.10.10.1")
				out := newStream(t, end.name+", outwards", l.n1, "10.10.10.1", l.n3, "10.10.30.1")
				for _, sig := range end.signals {
					l.n1.signal(t, sig)
					l.startNode(t, l.n1, "--on-stop=keep")
					within(t, 15*time.Second, "synced again", synced)
				}
				if n := in.lost(t) + out.lost(t); n > 0 {
					t.Errorf("%s cost %d packets", end.name, n)
				}
			}
		})
	}
}

// TestIPv6SurvivesACrash does so for the other family, beside every switch.
func TestIPv6SurvivesACrash(t *testing.T) {
	for _, r := range routers6 {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			l.dual(t)
			r.start(t, l.mls)
			l.startDual(t, l.n1, "fd00:20:30::1")
			l.startDual(t, l.n3, "fd00:192::1")
			synced := func() bool {
				st := l.n1.status(t)
				return len(st.Sessions) == 1 && st.Sessions[0].Synced && l.mls.has(t, "fd10:10:0:10::/64") && l.n1.has(t, "fd10:10:0:30::/64")
			}
			within(t, 8*time.Second, "routes", func() bool { return synced() && l.n3.has(t, "fd10:10:0:10::/64") })
			in := newStream(t, "inwards", l.n3, "fd10:10:0:30::1", l.n1, "fd10:10:0:10::1")
			out := newStream(t, "outwards", l.n1, "fd10:10:0:10::1", l.n3, "fd10:10:0:30::1")
			l.n1.signal(t, syscall.SIGKILL)
			l.startDual(t, l.n1, "fd00:20:30::1")
			within(t, 15*time.Second, "synced again", synced)
			if n := in.lost(t) + out.lost(t); n > 0 {
				t.Errorf("a crash cost %d packets", n)
			}
		})
	}
}
