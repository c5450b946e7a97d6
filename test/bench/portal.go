// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// benchPortal measures portald beside kube-proxy (nftables mode), and its userspace mode beside HAProxy and a plain proxy.
// Both service proxies know the same objects: portald from one YAML file for each service, kube-proxy from an API server
// within this program that lists and watches as the real one does and costs nearly nothing.
func benchPortal(ctx context.Context, r *report, o options) error {
	b := &portalBench{r: r, o: o}
	fmt.Fprintln(r.out, "# services: portald reads YAML files, kube-proxy v1.37.2 (nftables mode) an API server of the bench's own")
	dir, err := os.MkdirTemp("/run", "bench-bin-")
	if err != nil {
		return err
	}
	bin := filepath.Join(dir, "kube-proxy")
	if err := b.buildKubeProxy(ctx, bin); err != nil {
		return err
	}
	b.ours = proxyKind{"portald", startPortald(o.root)}
	b.peer = proxyKind{"kube-proxy", startKubeProxy(bin)}
	var errs []error
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"userspace", b.userspace}, {"100-services", b.at(100)}, {"1000-services", b.at(1000)}, {"10000-services", b.at(10_000)},
		{"30000-services", b.at(30_000)}, {"one-service", b.wide},
	} {
		if strings.Contains(part.name, o.only) && ctx.Err() == nil {
			if err := part.run(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", part.name, err))
			}
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

type portalBench struct {
	r          *report
	o          options
	ours, peer proxyKind
}

// buildKubeProxy builds the peer from the module beside this one, in minutes the first time.
func (b *portalBench) buildKubeProxy(ctx context.Context, bin string) error {
	return goBuildIn(ctx, filepath.Join(b.o.root, "test", "bench", "kubeproxy"), bin, "k8s.io/kubernetes/cmd/kube-proxy")
}

const (
	startMost = 5 * time.Minute  // kube-proxy takes minutes with 30,000 services
	changMost = 30 * time.Second // for a change to take effect
)

// everywhere is a sample of the fleet's services, the first and the last among them: asking all takes longer than
// portald's start.
func everywhere(f fleet) (sample []int) {
	for i := range min(f.n, 200) {
		sample = append(sample, i*(f.n-1)/max(min(f.n, 200)-1, 1))
	}
	return sample
}

// startUp launches a proxy and returns how long it took from its start until all services answered. After the clock has
// stopped each one is asked, to be sure.
func startUp(ctx context.Context, kind proxyKind, f fleet) (*proxyHandle, time.Duration, error) {
	p, err := launch(ctx, kind, f)
	if err != nil {
		return nil, 0, err
	}
	answers := func(int, netip.Addr) bool { return true }
	done, err := p.w.await(ctx, f, everywhere(f), startMost, answers)
	if err == nil {
		all := make([]int, f.n)
		for i := range all {
			all[i] = i
		}
		_, err = p.w.await(ctx, f, all, changMost, answers)
	}
	if err != nil {
		p.close()
		return nil, 0, fmt.Errorf("%s: start: %w", kind.name, err)
	}
	return p, done.Sub(p.started), nil
}

// duo is portald and kube-proxy with one fleet; peer is nil where that would take too long.
type duo struct{ ours, peer *proxyHandle }

func (p duo) close() { p.ours.close(); p.peer.close() }

// start starts both, rounds times, and leaves those of the last round running.
func (b *portalBench) start(ctx context.Context, f fleet, rounds int, withPeer bool) (p duo, ours, peer []float64, err error) {
	one := func(kind proxyKind, at **proxyHandle, times *[]float64) func() error {
		return func() error {
			(*at).close()
			*at = nil
			h, took, err := startUp(ctx, kind, f)
			if err != nil {
				return err
			}
			*at = h
			*times = append(*times, millis(took))
			return nil
		}
	}
	runs := []func() error{one(b.ours, &p.ours, &ours)}
	if withPeer {
		runs = append(runs, one(b.peer, &p.peer, &peer))
	}
	if err := alternate(rounds, runs...); err != nil {
		p.close()
		return duo{}, nil, nil, err
	}
	return p, ours, peer, nil
}

// at measures everything with so many services of three endpoints.
func (b *portalBench) at(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		f := fleet{n: n, per: 3}
		withPeer := n <= b.o.peerMost
		rounds := 3
		if n >= 10_000 && withPeer {
			rounds = 2 // a quarter of a minute each for kube-proxy
		}
		p, ours, peer, err := b.start(ctx, f, rounds, withPeer)
		if err != nil {
			return err
		}
		defer p.close()
		start := map[int]Bar{100: {Want: 1}, 1000: {Want: 1}, 10_000: {Want: 10, Most: most(1500)}, 30_000: {Most: most(4000)}}[n]
		b.r.put(b.fill(start, "start", n, Millis), ours, peer)
		if err := b.changes(ctx, p, f); err != nil {
			return err
		}
		if n == 1000 {
			return b.connects(p, f)
		}
		if n != 10_000 {
			return nil
		}
		return errors.Join(b.memory(p, n), b.connects(p, f), b.burst(ctx, p, f), b.idle(ctx, p, n))
	}
}

// fill completes a Bar with its name. Without the peer there is no ratio to keep.
func (b *portalBench) fill(bar Bar, what string, n int, unit Unit) Bar {
	bar.Name, bar.Unit = fmt.Sprintf("%s-%d", what, n), unit
	if n > b.o.peerMost {
		bar.Want, bar.Reason = 0, "without kube-proxy; see -peer-most"
	}
	return bar
}

// changes replaces all endpoints of one service after the other, each from the write to the first connection that a
// new one answers, and notes the CPU time. In between it waits longer than kube-proxy gathers changes (1 s), so that
// this does not count.
func (b *portalBench) changes(ctx context.Context, p duo, f fleet) error {
	var took, cpu [2][]float64
	samples := max(b.o.rounds/8, 3)
	for k := range samples {
		i := (k*7919 + 1) % f.n
		for side, h := range []*proxyHandle{p.ours, p.peer} {
			if h == nil {
				continue
			}
			before, err := h.cpuWithChildren()
			if err != nil {
				return err
			}
			wall, err := h.replace(ctx, []int{i})
			if err != nil {
				return fmt.Errorf("change: %w", err)
			}
			sleep(ctx, 50*time.Millisecond) // what it does after the fact is its cost too
			after, err := h.cpuWithChildren()
			if err != nil {
				return err
			}
			took[side], cpu[side] = append(took[side], millis(wall)), append(cpu[side], millis(after-before))
		}
		sleep(ctx, 1100*time.Millisecond)
	}
	change := map[int]Bar{100: {Want: 1}, 1000: {Want: 1}, 10_000: {Want: 20}}[f.n]
	if f.n > 1 { // of one service all 5,000 endpoints change
		change.Most = most(10)
	}
	b.r.put(b.fill(change, "change", f.n, Millis), took[0], took[1])
	var used Bar
	if f.n == 10_000 {
		used = Bar{Want: 1, Most: most(2)}
	}
	b.r.put(b.fill(used, "change-cpu", f.n, Millis), cpu[0], cpu[1])
	return nil
}

// replace gives services new endpoints and returns how long it took until all of them answered.
func (h *proxyHandle) replace(ctx context.Context, services []int) (time.Duration, error) {
	h.version++
	want := h.version % 64
	start := time.Now()
	if err := h.change(services, h.version); err != nil {
		return 0, err
	}
	done, err := h.w.await(ctx, h.f, services, changMost, func(_ int, by netip.Addr) bool { return h.f.version(by) == want })
	return done.Sub(start), err
}

// burst changes a tenth of all services at once.
func (b *portalBench) burst(ctx context.Context, p duo, f fleet) error {
	var many []int
	for i := 0; i < f.n; i += 10 {
		many = append(many, i)
	}
	var took [2][]float64
	for range 3 {
		for side, h := range []*proxyHandle{p.ours, p.peer} {
			if h == nil {
				continue
			}
			wall, err := h.replace(ctx, many)
			if err != nil {
				return fmt.Errorf("burst: %w", err)
			}
			took[side] = append(took[side], millis(wall))
		}
		sleep(ctx, 1500*time.Millisecond)
	}
	b.r.put(b.fill(Bar{Want: 1, Most: most(500)}, fmt.Sprintf("burst-of-%d", len(many)), f.n, Millis), took[0], took[1])
	return nil
}

func (b *portalBench) memory(p duo, n int) error {
	var used [2][]float64
	for side, h := range []*proxyHandle{p.ours, p.peer} {
		if h == nil {
			continue
		}
		mb, err := h.w.node.memory("VmRSS")
		if err != nil {
			return err
		}
		used[side] = []float64{mb}
	}
	b.r.put(b.fill(Bar{Want: 2, Most: most(100)}, "memory", n, Mega), used[0], used[1])
	return nil
}

// idle is how much of a core a proxy takes while nothing happens.
func (b *portalBench) idle(ctx context.Context, p duo, n int) error {
	const watch = 5 * time.Second
	var share [2][]float64
	for side, h := range []*proxyHandle{p.ours, p.peer} {
		if h == nil {
			continue
		}
		before, err := h.cpuWithChildren()
		if err != nil {
			return err
		}
		sleep(ctx, watch)
		after, err := h.cpuWithChildren()
		if err != nil {
			return err
		}
		share[side] = []float64{100 * float64(after-before) / float64(watch)}
	}
	b.r.put(b.fill(Bar{Most: most(1)}, "idle", n, Percent), share[0], share[1])
	return nil
}

// connects compares connect(2) through a portal with the same to an endpoint directly, on each proxy's node.
func (b *portalBench) connects(p duo, f fleet) error {
	var failed [2][]float64
	for side, h := range []*proxyHandle{p.ours, p.peer} {
		if h == nil {
			continue
		}
		targets := []netip.AddrPort{anEndpoint, f.vip(0), f.vip(f.n - 1)}
		times, lost := make([][]float64, len(targets)), 0.0
		err := h.w.client.ns.Do(func() error {
			const block = 200 // at a time, so that all meet the same machine
			for range max(b.o.rounds/3, 5) {
				for k, to := range targets {
					for range block {
						_, took, err := ask(to, time.Second)
						if errors.Is(err, syscall.EINTR) { // Go's own signals: no sample
							continue
						}
						if err != nil {
							lost++
							fmt.Fprintf(b.r.out, "# %s: connect to %s, %s after its start: %v\n", h.kind, to, time.Since(h.started).Round(time.Millisecond), err)
							continue
						}
						times[k] = append(times[k], float64(took)/float64(time.Microsecond))
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		failed[side] = []float64{lost}
		for k, which := range []string{1: "first", 2: "last"} {
			if which == "" {
				continue
			}
			bar := Bar{Name: fmt.Sprintf("connect-%s-of-%d-vs-direct", which, f.n), Unit: Micros, Want: 1 / 1.05}
			if side == 1 {
				bar.Name, bar.Want = "kube-proxy's-"+bar.Name, 0
			}
			b.r.put(bar, slices.Clone(times[k]), times[0])
		}
	}
	b.r.put(b.fill(Bar{Most: most(0)}, "failed-connects", f.n, Times), failed[0], failed[1])
	return nil
}

// wide is one service with 5,000 endpoints.
func (b *portalBench) wide(ctx context.Context) error {
	f := fleet{n: 1, per: 5000}
	p, ours, peer, err := b.start(ctx, f, 3, true)
	if err != nil {
		return err
	}
	defer p.close()
	b.r.put(b.fill(Bar{Want: 1}, "start-of-5000-endpoints-in", 1, Millis), ours, peer)
	return b.changes(ctx, p, f)
}
