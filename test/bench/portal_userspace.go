// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// userspace compares portald --mode=userspace with HAProxy in TCP mode and with a plain Go proxy. All run on one node and
// are dialled at their own ports by one client; behind each is the same endpoint.
func (b *portalBench) userspace(ctx context.Context) error {
	f := fleet{n: 1, per: 1}
	p, err := launch(ctx, proxyKind{"portald", startPortald(b.o.root, "--mode=userspace")}, f)
	if err != nil {
		return err
	}
	defer p.close()
	node, backend := p.w.node, netip.MustParseAddr("10.20.30.1")
	ports := map[string]int{"echo": echoPort, "bulk": bulkPort}
	var routes []proxyRoute
	for k, what := range []string{"echo", "bulk"} {
		to := netip.AddrPortFrom(backend, uint16(ports[what])) //nolint:gosec // small
		r := proxyRoute{what: what, haproxy: 18000 + k, plain: 19000 + k}
		if _, err := node.write("services/"+what+".yaml", userManifest(what, k, to)); err != nil {
			return err
		}
		if err := plainProxy(node, r.plain, to); err != nil {
			return err
		}
		r.to = to
		routes = append(routes, r)
	}
	if err := startHAProxy(node, routes); err != nil {
		return err
	}
	for k := range routes {
		if routes[k].ours, err = p.awaitProxyPort(ctx, userVIP(k)); err != nil {
			return err
		}
	}
	return b.compare(ctx, p.w, routes)
}

// proxyRoute is one endpoint and the ports by which each proxy leads to it.
type proxyRoute struct {
	what                 string
	to                   netip.AddrPort
	ours, haproxy, plain int
}

func userVIP(k int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100, 255, byte(k)}), servicePort)
}

func userManifest(what string, k int, to netip.AddrPort) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {clusterIP: %[2]s, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: "", port: %[4]d}]
endpoints: [{addresses: [%[3]s]}]
`, what, userVIP(k).Addr(), to.Addr(), to.Port())
}

// startHAProxy starts Debian's HAProxy as it comes: a thread for each core.
func startHAProxy(node *host, routes []proxyRoute) error {
	text := "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1m\n  timeout server 1m\n"
	for _, r := range routes {
		text += fmt.Sprintf("listen %s\n  bind :%d\n  server one %s\n", r.what, r.haproxy, r.to)
	}
	conf, err := node.write("haproxy.cfg", text)
	if err != nil {
		return err
	}
	return node.start("haproxy", "-db", "-f", conf)
}

// plainProxy is the shortest proxy that Go allows, in a process of its own.
func plainProxy(node *host, port int, to netip.AddrPort) error {
	return node.start("/proc/self/exe", fmt.Sprintf("-plain-proxy=%d,%s", port, to))
}

// servePlainProxy is that process.
func servePlainProxy(arg string) error {
	var port int
	var to string
	if _, err := fmt.Sscanf(arg, "%d,%s", &port, &to); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer client.Close() //nolint:errcheck // as short as can be
			server, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer server.Close() //nolint:errcheck // as above
			go func() { _, _ = io.Copy(server, client); _ = server.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(client, server)
		}()
	}
}

// awaitProxyPort waits until portald serves a portal, and returns the port.
func (h *proxyHandle) awaitProxyPort(ctx context.Context, vip netip.AddrPort) (port int, err error) {
	for range 1000 {
		if port, err = h.proxyPort(vip); err == nil {
			return port, nil
		}
		sleep(ctx, 5*time.Millisecond)
	}
	return 0, fmt.Errorf("%w;%s", err, h.w.node.said())
}

// The amounts of one sample.
const (
	turns    = 1000     // requests and answers on one connection
	arrivals = 300      // connections, each with one request and one answer
	bulk     = 64 << 20 // bytes
)

// compare measures all three in alternation.
func (b *portalBench) compare(ctx context.Context, w *world, routes []proxyRoute) error {
	names := []string{"portald", "haproxy", "plain"}
	if err := w.answering(ctx, routes); err != nil {
		return err
	}
	port := func(r proxyRoute, k int) netip.AddrPort {
		return netip.AddrPortFrom(nodeInside, uint16([]int{r.ours, r.haproxy, r.plain}[k])) //nolint:gosec // a port
	}
	for _, m := range []struct {
		name   string
		unit   Unit
		route  proxyRoute
		rounds int
		run    func(netip.AddrPort) ([]float64, error)
	}{
		{"userspace-request", Micros, routes[0], max(b.o.rounds/3, 5), requests},
		{"userspace-connection", Micros, routes[0], max(b.o.rounds/3, 5), connections},
		{"userspace-64MiB", Millis, routes[1], max(b.o.rounds/5, 5), download},
	} {
		got, cpu := make([][]float64, len(names)), make([]time.Duration, len(names))
		var runs []func() error
		for k := range names {
			runs = append(runs, func() error {
				var v []float64
				before, err := w.node.cpu()
				if err != nil {
					return err
				}
				err = w.client.ns.Do(func() (err error) { v, err = m.run(port(m.route, k)); return err })
				if err != nil {
					return fmt.Errorf("%s of %s: %w;%s", m.name, names[k], err, w.node.said())
				}
				got[k] = append(got[k], v...)
				after, err := w.node.cpu() // the other two do nothing meanwhile
				cpu[k] += after - before
				return errors.Join(err, ctx.Err())
			})
		}
		if err := alternate(m.rounds, runs...); err != nil {
			return err
		}
		// "Not slower" on a machine whose figures come and go by three in a hundred.
		for k := 1; k < len(names); k++ {
			bar := Bar{Name: m.name + "-vs-" + names[k], Unit: m.unit, Want: 0.97}
			bar.fill(got[0], got[k])
			bar.Ours.CPU, bar.Peer.CPU = cpu[0]/time.Duration(len(got[0])), cpu[k]/time.Duration(len(got[k]))
			b.r.print(bar, fmt.Sprintf("; cpu of the proxy %s, %s", bar.Ours.CPU, bar.Peer.CPU))
		}
	}
	return nil
}

// answering waits until every proxy accepts.
func (w *world) answering(ctx context.Context, routes []proxyRoute) error {
	return w.client.ns.Do(func() error {
		for _, r := range routes {
			for _, port := range []int{r.ours, r.haproxy, r.plain} {
				at := netip.AddrPortFrom(nodeInside, uint16(port)) //nolint:gosec // a port
				c, err := dialBlocking(at)
				for start := time.Now(); err != nil; c, err = dialBlocking(at) {
					if time.Since(start) > 10*time.Second || ctx.Err() != nil {
						return fmt.Errorf("port %d: %w;%s", port, err, w.node.said())
					}
					sleep(ctx, 5*time.Millisecond)
				}
				c.close()
			}
		}
		return nil
	})
}

// caller is a blocking socket of the calling thread, so that Go's scheduler is not part of what is measured.
type caller int

func dialBlocking(to netip.AddrPort) (caller, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	c := caller(fd)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), // leave no TIME_WAIT
		unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
	)
	if err != nil {
		c.close()
		return 0, err
	}
	return c, nil
}

func (c caller) close() { _ = unix.Close(int(c)) }

// turn sends one byte and waits for it to come back.
func (c caller) turn() error {
	b := []byte{'x'}
	if _, err := unix.Write(int(c), b); err != nil {
		return err
	}
	n, err := unix.Read(int(c), b)
	if err == nil && n != 1 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func requests(to netip.AddrPort) (times []float64, err error) {
	c, err := dialBlocking(to)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for range turns {
		start := time.Now()
		if err := c.turn(); err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(start))/float64(time.Microsecond))
	}
	return times[turns/10:], nil // warm
}

func connections(to netip.AddrPort) (times []float64, err error) {
	for range arrivals {
		start := time.Now()
		c, err := dialBlocking(to)
		if err != nil {
			return nil, err
		}
		err = c.turn()
		c.close()
		if err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(start))/float64(time.Microsecond))
	}
	return times, nil
}

func download(to netip.AddrPort) ([]float64, error) {
	c, err := dialBlocking(to)
	if err != nil {
		return nil, err
	}
	defer c.close()
	buf := make([]byte, 256<<10)
	start := time.Now()
	for got := 0; got < bulk; {
		n, err := unix.Read(int(c), buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		got += n
	}
	return []float64{millis(time.Since(start))}, nil
}
