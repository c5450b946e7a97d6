// SPDX-License-Identifier: Apache-2.0

// Package e2e keeps l3edge's promises: one test each, with the real binaries, in the article's lab.
package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
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
func run(t *testing.T, p *place.Place, name string, args ...string) string {
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
			return h.Reaches(vip)
		})
	}
	return pods
}

const vip = "10.100.87.105:80"

func ask(t *testing.T, p *place.Place, addr string) place.Answer {
	t.Helper()
	a, err := p.Ask(addr)
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
	labtest.Within(t, 5*time.Second, "server outside", func() error { _, err := outside.Ask(addr); return err })
	return addr
}

// capture starts recording on an interface that has come to rest; the function it returns stops it and gives what passed.
func capture(t *testing.T, h *lab.Host, iface string, ports ...uint16) (stop func() []place.Packet) {
	t.Helper()
	must(t, h.AwaitQuiet(iface, ports...))
	c, err := h.NewCapture(iface, ports...)
	must(t, err)
	return func() []place.Packet {
		t.Helper()
		packets, err := c.Stop()
		must(t, err)
		return packets
	}
}

// anyPort is the address with whatever port.
func anyPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }
