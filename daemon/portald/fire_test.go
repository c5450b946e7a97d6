// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// visitors open connections from a namespace at a steady rate, whatever becomes of those before.
type visitors struct {
	t    *testing.T
	from *netns.Handle
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	took []attempt
}

type attempt struct {
	began time.Time
	err   error // nil: an answer came
}

const perSecond = 500

func (w *world) visit(from *netns.Handle, to string) *visitors {
	l := &visitors{t: w.t, from: from, stop: make(chan struct{})}
	at := netip.MustParseAddrPort(to)
	l.done.Go(func() {
		tick := time.NewTicker(time.Second / perSecond)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			l.done.Go(func() {
				a := attempt{began: time.Now()}
				if err := from.Do(func() error { a.err = visit(at); return nil }); err != nil {
					a.err = err
				}
				l.mu.Lock()
				l.took = append(l.took, a)
				l.mu.Unlock()
			})
		}
	})
	w.t.Cleanup(func() { l.finish() })
	return l
}

// visit connects, waits for an answer and resets, so that ports do not run out.
func visit(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // it is reset
	limit := unix.Timeval{Sec: 4}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	b := make([]byte, 64)
	for {
		switch n, err := unix.Read(fd, b); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return fmt.Errorf("read: %w", io.ErrUnexpectedEOF)
		default:
			return nil
		}
	}
}

// finish ends the load, waits for what is under way and returns all attempts.
func (l *visitors) finish() []attempt {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.done.Wait()
	return l.took
}

// failures are the attempts that began at one of the times that count and came to nothing.
func failures(all []attempt, counts func(began time.Time) bool) (failed []string, of int) {
	for _, a := range all {
		if !counts(a.began) {
			continue
		}
		of++
		if a.err != nil {
			failed = append(failed, a.err.Error())
		}
	}
	return failed, of
}

func (p *portald) kill() {
	p.w.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.w.t.Fatal(err)
	}
	_ = p.cmd.Wait() // killed
}

func one(r portals.Report) bool { return len(r.Portals) == 1 }

// TestFireKernelLosesNothing: portald is killed again and again while connections come in: none of them notices.
func TestFireKernelLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4", "10.10.10.3"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	p := w.start()
	p.synced("the first sync", one)
	l := w.visit(w.client, vip)
	for range 8 {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // at any moment
		p.kill()
		p = w.start()
		if rand.IntN(2) == 0 {
			p.synced("the sync after a restart", one)
		}
	}
	p.synced("the last sync", one)
	failed, of := failures(l.finish(), func(time.Time) bool { return true })
	if len(failed) > 0 || of < perSecond/2 {
		t.Errorf("%d of %d connections failed: %v", len(failed), of, failed[:min(len(failed), 5)])
	}
	t.Logf("%d connections over 8 kills", of)
}

// TestFireProxyLosesNoneOfTheNew: of the connections that begin after portald was killed none fails, though it takes a
// while to come back.
func TestFireProxyLosesNoneOfTheNew(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4", "10.10.10.3"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	m := newSystemd(t)
	t.Setenv("NOTIFY_SOCKET", m.path)
	p := w.start("--mode=userspace")
	m.hears("FDSTORE=1")
	m.hears("READY=1")
	l := w.visit(w.client, vip)
	time.Sleep(500 * time.Millisecond)
	p.kill()
	killed := time.Now()
	time.Sleep(200 * time.Millisecond) // as long as a service manager takes
	w.startWith(m, "--mode=userspace")
	m.hears("READY=1")
	time.Sleep(500 * time.Millisecond)
	failed, of := failures(l.finish(), func(began time.Time) bool { return began.After(killed) })
	if len(failed) > 0 || of < perSecond/4 {
		t.Errorf("%d of %d new connections failed: %v", len(failed), of, failed[:min(len(failed), 5)])
	}
	old, before := failures(l.took, func(began time.Time) bool { return began.Before(killed) })
	t.Logf("%d connections after the kill; %d of %d before it went down with it", of, len(old), before)
}

// startWith starts portald as the service manager does after a crash, with the sockets that it kept.
func (w *world) startWith(m *systemd, more ...string) *portald {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &portald{w: w, log: new(lines)}
	nstest.Do(w.t, w.node, func() error {
		p.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, self}, w.args(more...)...)...)
		var names []string
		for name, f := range m.kept {
			names = append(names, name)
			p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
		}
		p.cmd.Env = append(os.Environ(), "PORTALD_TEST_RUN=1", "XTABLES_LOCKFILE="+filepath.Join(w.run, "xtables.lock"),
			"LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
		return p.cmd.Start()
	})
	w.t.Cleanup(func() {
		p.stop()
		if w.t.Failed() {
			w.t.Logf("portald's log:\n%s", p.log)
		}
	})
	return p
}

// TestFireEndpointVanishes: an endpoint's machine is unplugged in the middle of traffic. A second later nobody notices.
func TestFireEndpointVanishes(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4", "10.10.10.3"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	p := w.start("--mode=userspace")
	p.synced("the first sync", one)
	l := w.visit(w.client, vip)
	time.Sleep(300 * time.Millisecond)
	nstest.Sh(t, w.node, "ip link set vnear down")
	gone := time.Now()
	time.Sleep(2500 * time.Millisecond)
	all := l.finish()
	failed, of := failures(all, func(began time.Time) bool { return began.After(gone.Add(time.Second)) })
	if len(failed) > 0 || of < perSecond/2 {
		t.Errorf("%d of %d connections failed a second after the endpoint had gone: %v", len(failed), of, failed[:min(len(failed), 5)])
	}
	sum, total := failures(all, func(time.Time) bool { return true })
	r := p.synced("the report", one)
	if r.Portals[0].Traffic.Ejected == 0 {
		t.Error("the endpoint was not put to rest")
	}
	t.Logf("%d of %d connections failed in all; the endpoint rested %d times", len(sum), total, r.Portals[0].Traffic.Ejected)
}

// churned is service i of the churn with so many endpoints.
func churned(i, endpoints int) string {
	text := webfrontend(slices.Repeat([]string{"10.10.20.4"}, 0)...)
	for j := range endpoints {
		text += fmt.Sprintf("  - {addresses: [10.10.%d.%d]}\n", 30+i%50, 1+j+i/50)
	}
	text = strings.ReplaceAll(text, "webfrontend", fmt.Sprintf("churn-%04d", i))
	return strings.ReplaceAll(text, "10.100.87.105", fmt.Sprintf("10.100.%d.%d", 1+i/250, 1+i%250))
}

// churnFor is how long services come and go; PORTALD_FIRE_CHURN makes it longer.
func churnFor(t *testing.T) time.Duration {
	if text := os.Getenv("PORTALD_FIRE_CHURN"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return 2 * time.Second
}

// TestFireChurnLeavesNothing: a thousand services come, change and go in random order. What the kernel holds in the end is
// what a portald makes that starts from nothing; and after all have gone, nothing is left in kernel or process.
func TestFireChurnLeavesNothing(t *testing.T) {
	const services = 1000
	for mode, list := range map[string]string{"nftables": "nft list ruleset", "userspace": "iptables-save -t nat"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			p := w.start("--mode="+mode, "--metrics=127.0.0.1:10249")
			p.synced("nothing", func(r portals.Report) bool { return len(r.Portals) == 0 })
			goroutines, files := p.size()
			there := map[int]bool{}
			for end := time.Now().Add(churnFor(t)); time.Now().Before(end); {
				for range 1 + rand.IntN(40) {
					i := rand.IntN(services)
					if there[i] && rand.IntN(2) == 0 {
						delete(there, i)
						if err := os.Remove(filepath.Join(w.dir, fmt.Sprintf("%d.yaml", i))); err != nil {
							t.Fatal(err)
						}
						continue
					}
					w.write(fmt.Sprintf("%d.yaml", i), churned(i, rand.IntN(6)))
					there[i] = true
				}
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			}
			w.write("last.yaml", webfrontend("10.10.20.4")) // when this is in force, all before is
			all := func(r portals.Report) bool {
				return len(r.Portals) == len(there)+1 && slices.ContainsFunc(r.Portals, func(p portals.Portal) bool { return p.Service == "default/webfrontend" })
			}
			p.synced("the end of the churn", all)
			eventually(t, "the last service in the kernel", func() bool { return strings.Contains(nstest.Sh(t, w.node, list), "10.100.87.105") })
			after := kernel(nstest.Sh(t, w.node, list))
			if len(after) < len(there) {
				t.Fatalf("%d services, and the kernel holds %v", len(there), after)
			}
			p.stop()
			p = w.start("--cleanup")
			if err := p.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if left := nstest.Sh(t, w.node, list); strings.Contains(left, "10.100.") || strings.Contains(left, "KUBE-") {
				t.Errorf("left after --cleanup:\n%s", left)
			}
			p = w.start("--mode="+mode, "--metrics=127.0.0.1:10249")
			p.synced("a start from nothing", all)
			eventually(t, "the last service in the kernel", func() bool { return strings.Contains(nstest.Sh(t, w.node, list), "10.100.87.105") })
			if fresh := kernel(nstest.Sh(t, w.node, list)); !slices.Equal(after, fresh) {
				t.Errorf("%d services; only after the churn: %v\nonly from nothing: %v", len(there), except(after, fresh), except(fresh, after))
			}
			_ = os.Remove(filepath.Join(w.dir, "last.yaml"))
			for i := range there {
				_ = os.Remove(filepath.Join(w.dir, fmt.Sprintf("%d.yaml", i)))
			}
			p.synced("no services", func(r portals.Report) bool { return len(r.Portals) == 0 })
			eventually(t, "goroutines and files of the services to go", func() bool {
				g, f := p.size()
				return g <= goroutines+2 && f <= files+2
			})
			eventually(t, "the kernel to hold no service", func() bool {
				left := nstest.Sh(t, w.node, list)
				return !strings.Contains(left, " . 80") && !strings.Contains(left, "--dport")
			})
		})
	}
}

// size is how many goroutines and open files portald has.
func (p *portald) size() (goroutines, files int) {
	text := p.w.httpGet("127.0.0.1:10249", "/debug/pprof/goroutine?debug=1")
	_, _ = fmt.Sscanf(text, "goroutine profile: total %d", &goroutines)
	if goroutines == 0 {
		p.w.t.Fatalf("no goroutines in %.200s", text)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.w.t.Fatal(err)
	}
	return goroutines, len(open)
}

func (w *world) httpGet(addr, path string) string {
	return nstest.Run(w.t, w.node, "curl", "-s", "--retry-connrefused", "--retry", "5", "http://"+addr+path)
}

// kernel is a listing as a set: one entry for each element and rule, without what depends on history (the slot of an
// endpoint, the number of a proxy port, counters) and without what is made on first use and kept.
func kernel(list string) (out []string) {
	for line := range strings.SplitSeq(list, "\n") {
		line = strings.Trim(line, " \t,{}")
		for _, one := range strings.Split(strings.TrimPrefix(line, "elements = { "), ", ") {
			one = strings.Trim(one, " \t,{}")
			if !strings.Contains(one, "10.100.") {
				continue
			}
			for _, volatile := range []string{" . 0x", "--to-ports ", "--to-destination 10.20.30.62:"} {
				if head, rest, ok := strings.Cut(one, volatile); ok {
					_, tail, _ := strings.Cut(rest, " ")
					one = head + " " + tail
				}
			}
			out = append(out, one)
		}
	}
	slices.Sort(out)
	return out
}

// except is a few of what is in a and not in b.
func except(a, b []string) (out []string) {
	in := map[string]int{}
	for _, s := range b {
		in[s]++
	}
	for _, s := range a {
		if in[s]--; in[s] < 0 && len(out) < 6 {
			out = append(out, s)
		}
	}
	return out
}

// TestFireOutOfPorts: the node has no port left for another connection to the endpoint. Those too many are refused with a
// line in the log, no endpoint is blamed, and when ports come free all is well.
func TestFireOutOfPorts(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", strings.Replace(webfrontend("10.10.20.4"), "{name: webfrontend}",
		"{name: webfrontend, annotations: {l3edge.dev/connect-timeouts: '50ms,50ms'}}", 1))
	l := w.silent(w.other, "10.10.20.4:8080")
	p := w.start("--mode=userspace")
	p.synced("the portal", one)
	nstest.Sh(t, w.node, "echo 60000 60009 > /proc/sys/net/ipv4/ip_local_port_range")
	var open []int
	nstest.Do(t, w.client, func() error {
		for range 20 {
			fd, err := dial(netip.MustParseAddrPort(vip))
			if err != nil {
				return err
			}
			open = append(open, fd)
		}
		return nil
	})
	eventually(t, "the log to tell", func() bool {
		return strings.Contains(p.log.String(), "cannot connect") && strings.Contains(p.log.String(), "cannot assign requested address")
	})
	r := p.synced("the connections to be sent away", func(r portals.Report) bool { return r.Portals[0].Traffic.Failed >= 10 })
	if s := r.Portals[0].Traffic; s.Ejected > 0 || s.Active != 10 {
		t.Errorf("%d connections are carried, and the endpoint was blamed %d times", s.Active, s.Ejected)
	}
	for _, fd := range open {
		_ = unix.Close(fd)
	}
	_ = l.Close()
	w.pod(w.other, "far", "10.10.20.4:8080")
	eventually(t, "an answer afterwards", func() bool { return w.curl(w.client, vip) == "far saw 10.20.30.62" })
}

// silent accepts nothing: connections to it stand, and that is all.
func (w *world) silent(h *netns.Handle, addr string) io.Closer {
	w.t.Helper()
	var f *os.File
	at := netip.MustParseAddrPort(addr)
	nstest.Do(w.t, h, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "silent")
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}), unix.Listen(fd, 100))
	})
	w.t.Cleanup(func() { _ = f.Close() })
	return f
}

func dial(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}

// TestFireHostileService: a Service that asks for the impossible, and for very much, harms no other.
func TestFireHostileService(t *testing.T) {
	for _, mode := range []string{"nftables", "userspace"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			w.write("web.yaml", webfrontend("10.10.20.4"))
			w.pod(w.other, "far", "10.10.20.4:8080")
			p := w.start("--mode=" + mode)
			p.synced("the portal", one)
			l := w.visit(w.client, vip)
			w.write("odd.yaml", strings.NewReplacer("{name: webfrontend}", `{name: "-j ACCEPT\n; rm -rf", annotations: {l3edge.dev/balance: "\0\n}", l3edge.dev/weights: "=,=", l3edge.dev/check-path: "/ HTTP/1.1\r\nX: y"}}`,
				"10.100.87.105", "10.100.87.106").Replace(webfrontend("10.10.20.4")))
			w.write("many.yaml", manyPorts(10_000))
			eventually(t, "portald to say what is wrong", func() bool { return strings.Contains(p.log.String(), "odd.yaml") })
			w.write("later.yaml", strings.NewReplacer("webfrontend", "later", "10.100.87.105", "10.100.87.108").Replace(webfrontend("10.10.20.4")))
			eventually(t, "a service that came later", func() bool { return strings.HasPrefix(w.curl(w.client, "10.100.87.108:80"), "far saw") })
			failed, of := failures(l.finish(), func(time.Time) bool { return true })
			if len(failed) > 0 || of == 0 {
				t.Errorf("%d of %d connections to another service failed: %v", len(failed), of, failed[:min(len(failed), 5)])
			}
		})
	}
}

func manyPorts(n int) string {
	var ports, ends strings.Builder
	for i := range n {
		fmt.Fprintf(&ports, "  - {name: p%d, port: %d}\n", i, 1000+i)
		fmt.Fprintf(&ends, "  - {name: p%d, port: 8080}\n", i)
	}
	return "apiVersion: v1\nkind: Service\nmetadata: {name: many}\nspec:\n  clusterIP: 10.100.87.107\n  ports:\n" + ports.String() +
		"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: many-1, labels: {kubernetes.io/service-name: many}}\n" +
		"addressType: IPv4\nendpoints: [{addresses: [10.10.20.4]}]\nports:\n" + ends.String()
}
