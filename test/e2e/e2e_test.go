// SPDX-License-Identifier: Apache-2.0

// Package e2e keeps l3edge's promises: one test each, with the real binaries, in the article's lab.
package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// must fails the test on error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a program there and returns its output.
func run(t *testing.T, p *lab.Place, name string, args ...string) string {
	t.Helper()
	out, err := p.Run(name, args...)
	must(t, err)
	return out
}

// routed brings up a lab whose nodes know each other's pods.
func routed(t *testing.T, mls lab.Kind) *lab.Lab {
	t.Helper()
	l := labtest.Up(t, mls)
	must(t, l.StartAllRouted())
	return l
}

// addPod makes a pod with one web server on 8080, unless other containers are given.
func addPod(t *testing.T, l *lab.Lab, host, name string, containers ...lab.Container) *lab.Pod {
	t.Helper()
	if len(containers) == 0 {
		containers = []lab.Container{{Name: "web8080", Port: 8080}}
	}
	p, err := l.AddPod(l.Hosts[host], name, containers...)
	must(t, err)
	return p
}

// portal starts portald on every node and waits until a portal of webfrontend answers everywhere.
func portal(t *testing.T, l *lab.Lab, mode string) []*lab.Pod {
	t.Helper()
	must(t, l.StartMaster())
	for _, h := range l.Nodes() {
		must(t, h.StartPortald("--mode="+mode))
	}
	pods, err := l.AddWebPods()
	must(t, err)
	for _, h := range l.Nodes() {
		labtest.Within(t, 5*time.Second, "portal on "+h.Name, func() error {
			if _, err := h.Portald.Running(); err != nil {
				return err
			}
			_, err := h.Get(vip, "/")
			return err
		})
	}
	return pods
}

const vip = "10.100.87.105:80"

// answer is what a web server of the lab says.
type answer struct {
	pod, node       string
	address, client netip.AddrPort
}

func get(p *lab.Place, addr string) (answer, error) {
	text, err := p.Get(addr, "/")
	if err != nil {
		return answer{}, err
	}
	a := answer{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "pod":
			a.pod = value
		case "node":
			a.node = value
		case "address":
			a.address, err = netip.ParseAddrPort(value)
		case "client":
			a.client, err = netip.ParseAddrPort(value)
		}
		if err != nil {
			return answer{}, fmt.Errorf("answer %q: %w", text, err)
		}
	}
	a.address, a.client = unmap(a.address), unmap(a.client)
	return a, nil
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func ask(t *testing.T, p *lab.Place, addr string) answer {
	t.Helper()
	a, err := get(p, addr)
	must(t, err)
	return a
}

func on(addr netip.Addr, port uint16) string { return netip.AddrPortFrom(addr, port).String() }

// serveOutside starts a web server on the host beyond the switch.
func serveOutside(t *testing.T, l *lab.Lab) string {
	t.Helper()
	outside := l.Hosts["outside"]
	_, err := outside.Start("web", "l3ctl", "lab", "web", "--container=web", "--pod=none", "--port=8080")
	must(t, err)
	addr := on(outside.Spec.Addr.Addr(), 8080)
	labtest.Within(t, 5*time.Second, "server outside", func() error { _, err := get(&outside.Place, addr); return err })
	return addr
}

// packet is one line of tcpdump -nn -q.
type packet struct{ src, dst netip.AddrPort }

func (p packet) String() string { return p.src.String() + " > " + p.dst.String() }

// between reports whether the packet goes from a to b or back. Port 0 is any.
func (p packet) between(a, b netip.AddrPort) bool {
	is := func(x, want netip.AddrPort) bool {
		return x.Addr() == want.Addr() && (want.Port() == 0 || x.Port() == want.Port())
	}
	return is(p.src, a) && is(p.dst, b) || is(p.src, b) && is(p.dst, a)
}

func any(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }

var tcpdumpLine = regexp.MustCompile(`IP (\d+\.\d+\.\d+\.\d+)\.(\d+) > (\d+\.\d+\.\d+\.\d+)\.(\d+): `)

// capture starts tcpdump on an interface; the function it returns stops it and gives what passed.
func capture(t *testing.T, h *lab.Host, iface, filter string) (stop func() []packet) {
	t.Helper()
	proc, err := h.Start("tcpdump-"+iface+"-"+strings.ReplaceAll(t.Name(), "/", "-"),
		"tcpdump", "-nn", "-q", "-l", "--immediate-mode", "-i", iface, filter)
	must(t, err)
	labtest.Within(t, 5*time.Second, "tcpdump on "+iface, func() error {
		if _, err := proc.Running(); err != nil {
			return err
		}
		if !strings.Contains(proc.Log(), "listening on") {
			return errors.New("not listening yet")
		}
		return nil
	})
	return func() []packet {
		t.Helper()
		must(t, proc.Stop())
		var out []packet
		for _, m := range tcpdumpLine.FindAllStringSubmatch(proc.Log(), -1) {
			out = append(out, packet{netip.MustParseAddrPort(m[1] + ":" + m[2]), netip.MustParseAddrPort(m[3] + ":" + m[4])})
		}
		return out
	}
}

// flows counts TCP connections: pairs of ends, whichever way the packets go.
func flows(packets []packet) int {
	seen := map[[2]string]bool{}
	for _, p := range packets {
		ends := [2]string{p.src.String(), p.dst.String()}
		slices.Sort(ends[:])
		seen[ends] = true
	}
	return len(seen)
}
