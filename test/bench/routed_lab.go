// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns"
)

// host is a namespace, a folder of its own, and the processes that run there.
type host struct {
	ns    *netns.Handle
	name  string
	dir   string
	procs []*proc
}

func newHost(name string) (*host, error) {
	dir, err := os.MkdirTemp("/run", "bench-"+name+"-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // FRR gives up root
		return nil, err
	}
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	h := &host{ns: ns, name: name, dir: dir}
	return h, h.sh("ip link set lo up")
}

// close kills what runs there and forgets the namespace.
func (h *host) close() {
	h.kill(syscall.SIGKILL)
	_ = h.ns.Close()
	_ = os.RemoveAll(h.dir)
}

// sh runs shell lines in the namespace, stopping at the first that fails.
func (h *host) sh(script string) error {
	var out []byte
	err := h.ns.Do(func() (err error) { out, err = exec.Command("sh", "-ec", script).CombinedOutput(); return err })
	if err != nil {
		return fmt.Errorf("%s: %s: %w: %s", h.name, script, err, out)
	}
	return nil
}

// veth joins a and b; both ends come up, with addresses where they are given. Their indexes differ: where they happen to
// be equal, the kernel takes b's loss of carrier for one that may wait up to a second (linkwatch_urgent_event in
// net/core/link_watch.c).
func veth(a *host, nameA, addrA string, b *host, nameB, addrB string) error {
	if err := a.sh(fmt.Sprintf("ip link add %s index 1001 type veth peer name %s index %d netns %s", nameA, nameB, 2000+len(nameB)+int(nameB[len(nameB)-1]), b.ns.Path())); err != nil {
		return err
	}
	for _, end := range []struct {
		h          *host
		name, addr string
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		script := "ip link set " + end.name + " up"
		if end.addr != "" {
			script += "; ip addr add " + end.addr + " dev " + end.name
		}
		if err := end.h.sh(script); err != nil {
			return err
		}
	}
	return nil
}

// setDown takes a link down as fast as can be: starting ip(8) would take as long as what is measured.
func (h *host) setDown(link string) error {
	return h.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written to it
		r, err := unix.NewIfreq(link)
		if err != nil {
			return err
		}
		r.SetUint16(0) // without IFF_UP
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
			return fmt.Errorf("set %s down: %w", link, err)
		}
		return nil
	})
}

func (h *host) write(name, text string) (path string, err error) {
	path = filepath.Join(h.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// proc is a running daemon; what it says goes to a file of its host.
type proc struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func (h *host) start(name string, args ...string) error {
	logFile, err := os.CreateTemp(h.dir, filepath.Base(name)+"-*.log")
	if err != nil {
		return err
	}
	defer logFile.Close() //nolint:errcheck // the daemon has its own
	p := &proc{cmd: exec.Command(name, args...), log: logFile.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	if err := h.ns.Do(p.cmd.Start); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	h.procs = append(h.procs, p)
	return nil
}

// kill sends all daemons a signal, waits until they have gone, and helps after ten seconds.
func (h *host) kill(sig syscall.Signal) {
	for _, p := range h.procs {
		_ = p.cmd.Process.Signal(sig)
	}
	for _, p := range h.procs {
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	h.procs = nil
}

// said is the end of what the daemons said, for an error.
func (h *host) said() string {
	var out strings.Builder
	for _, p := range h.procs {
		b, _ := os.ReadFile(p.log)
		if len(b) > 300 {
			b = b[len(b)-300:]
		}
		if text := strings.Join(strings.Fields(string(b)), " "); text != "" {
			fmt.Fprintf(&out, " %s: %s", filepath.Base(p.cmd.Path), text)
		}
	}
	return out.String()
}

// cpu is the time that all daemons of the host have run so far, to the nanosecond: the clock of a process (clock_gettime(2),
// CPUCLOCK_SCHED) and not /proc's ticks of 10 ms.
func (h *host) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range h.procs {
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|2), &ts); err != nil {
			return 0, fmt.Errorf("clock of %s: %w", filepath.Base(p.cmd.Path), err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// memory is the resident memory of all daemons in MB: key VmRSS for now, VmHWM for the most there ever was.
func (h *host) memory(key string) (float64, error) {
	sum := 0.0
	for _, p := range h.procs {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(b), key+":")
		var kb float64
		if _, err := fmt.Sscan(rest, &kb); !ok || err != nil {
			return 0, fmt.Errorf("%s of %s: %w", key, filepath.Base(p.cmd.Path), err)
		}
		sum += kb / 1024
	}
	return sum, nil
}

// routes is how many prefixes the kernel's main table holds.
func (h *host) routes() (n int, err error) {
	var b []byte
	err = h.ns.Do(func() (err error) { b, err = os.ReadFile("/proc/thread-self/net/fib_triestat"); return err })
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), "Prefixes:")
	if !ok {
		return 0, errors.New("fib_triestat tells no prefixes")
	}
	_, err = fmt.Sscan(rest, &n)
	return n, err
}

// await looks at the number of routes until it is as wished and returns when that was. It looks as often as costs it at
// most a tenth of a core, at least every quarter of a millisecond.
func (h *host) await(ctx context.Context, most time.Duration, what string, ok func(n int) bool) (time.Time, error) {
	for start := time.Now(); ; {
		before := time.Now()
		n, err := h.routes()
		now := time.Now()
		switch {
		case err != nil:
			return now, err
		case ok(n):
			return now, nil
		case now.Sub(start) > most || ctx.Err() != nil:
			return now, fmt.Errorf("not within %s: %s (%d routes);%s", most, what, n, h.said())
		}
		sleep(ctx, max(10*now.Sub(before), 250*time.Microsecond))
	}
}

// dial connects from within the namespace.
func (h *host) dial(to netip.AddrPort) (conn net.Conn, err error) {
	err = h.ns.Do(func() (err error) { conn, err = net.DialTimeout("tcp", to.String(), time.Second); return err })
	return conn, err
}
