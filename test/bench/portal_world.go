// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// world is one node with a pod that asks and a machine that answers for every endpoint there could be:
//
//	client 10.10.10.2 ── node 10.10.10.1, 10.20.30.2 ── backend 10.20.30.1, 10.128.0.0/9
type world struct{ client, node, backend *host }

var (
	nodeInside  = netip.MustParseAddr("10.10.10.1")
	nodeOutside = netip.MustParseAddr("10.20.30.2")
	anEndpoint  = netip.MustParseAddrPort("10.255.0.1:8080") // none of a fleet's, but answered
)

func newWorld(ctx context.Context) (w *world, err error) {
	w = new(world)
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	for _, h := range []struct {
		to   **host
		name string
	}{{&w.client, "client"}, {&w.node, "node"}, {&w.backend, "backend"}} {
		if *h.to, err = newHost(h.name); err != nil {
			return w, err
		}
	}
	if err := veth(w.node, "client", "10.10.10.1/24", w.client, "eth0", "10.10.10.2/24"); err != nil {
		return w, err
	}
	// Another index than the first pair has: see veth.
	if err := w.node.sh("ip link add ens18 index 1002 type veth peer name eth0 netns " + w.backend.ns.Path() +
		"; ip addr add 10.20.30.2/24 dev ens18; ip link set ens18 up"); err != nil {
		return w, err
	}
	for _, step := range []struct {
		at     *host
		script string
	}{
		{w.client, "ip route add default via 10.10.10.1"},
		{w.node, `ip route add default via 10.20.30.1; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0
ip route add unreachable 10.100.0.0/16 metric 9999`}, // until there is a portal the answer comes at once
		{w.backend, `ip addr add 10.20.30.1/24 dev eth0; ip link set eth0 up; ip route add local 10.128.0.0/9 dev lo
ip route add default via 10.20.30.2; sysctl -qw net.core.somaxconn=4096`},
	} {
		if err := step.at.sh(step.script); err != nil {
			return w, err
		}
	}
	return w, w.answer(ctx)
}

func (w *world) close() {
	for _, h := range []*host{w.client, w.node, w.backend} {
		if h != nil {
			h.close()
		}
	}
}

// The ports of the backend beside endpointPort, which tells by which address it was reached.
const (
	echoPort = 8081 // says what it hears
	bulkPort = 8082 // sends without end
)

// answer serves at the backend until ctx ends.
func (w *world) answer(ctx context.Context) error {
	for port, serve := range map[int]func(net.Conn){
		endpointPort: func(c net.Conn) {
			a := netip.MustParseAddrPort(c.LocalAddr().String()).Addr().Unmap().As4()
			_, _ = c.Write(a[:])
		},
		echoPort: func(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }, // not by splice(2): it is small
		bulkPort: func(c net.Conn) {
			b := make([]byte, 256<<10)
			for err := error(nil); err == nil; {
				_, err = c.Write(b)
			}
		},
	} {
		var l net.Listener
		if err := w.backend.ns.Do(func() (err error) { l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); return err }); err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { serve(c); _ = c.Close() }()
			}
		}()
	}
	return nil
}

// ask connects, hears from which address the answer comes, and resets the connection, so that it leaves nothing behind.
// took is the time of connect(2) alone. The calling thread must be in the client's namespace.
func ask(to netip.AddrPort, timeout time.Duration) (by netip.Addr, took time.Duration, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // it is reset
	limit := unix.NsecToTimeval(timeout.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit) // of connect(2) too
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	sa := &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	start := time.Now()
	err = unix.Connect(fd, sa)
	took = time.Since(start)
	if err != nil {
		return netip.Addr{}, took, err
	}
	var b [4]byte
	n, err := unix.Read(fd, b[:])
	if err == nil && n != len(b) {
		err = io.ErrUnexpectedEOF
	}
	return netip.AddrFrom4(b), took, err
}

// patience is how long one attempt may take before the next.
const patience = 20 * time.Millisecond

// await asks services from the client until each has answered as wished, and returns when the last one did.
func (w *world) await(ctx context.Context, f fleet, services []int, most time.Duration, ok func(i int, by netip.Addr) bool) (done time.Time, err error) {
	start := time.Now()
	err = w.client.ns.Do(func() error {
		for _, i := range services {
			for {
				by, _, err := ask(f.vip(i), patience)
				if err == nil && ok(i, by) {
					break
				}
				if time.Since(start) > most || ctx.Err() != nil {
					return fmt.Errorf("service %d of %d not as wished within %s (last: %v %w);%s", i, f.n, most, by, err, w.node.said())
				}
				time.Sleep(200 * time.Microsecond)
			}
		}
		done = time.Now()
		return nil
	})
	return done, err
}
