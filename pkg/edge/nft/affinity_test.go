// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestClassNames(t *testing.T) {
	for _, c := range []class{{n: 3}, {n: 12, outside: true}, {n: 3, sticky: true}, {n: 65535, sticky: true, outside: true}, {keep: 86400}} {
		if got, ok := parseClass(c.name()); !ok || got != c {
			t.Errorf("%s is read as %+v, %v", c.name(), got, ok)
		}
	}
	for _, name := range []string{"", "n", "n0", "n03", "m3", "n70000", "refuse", "na", "n3s5", "a", "a0", "k0", "k05", "output", "x-1", "k99999999999"} {
		if c, ok := parseClass(name); ok {
			t.Errorf("%q is a class: %+v", name, c)
		}
	}
}

// sticky is one service of both families with affinity.
func sticky(keep time.Duration, endpoints ...string) snapshot {
	return newSnapshot().add(service.Service{ClusterIPs: addrs("10.100.87.105", "fd00:100::105"), Ports: tcp(80), Affinity: keep}, "web", endpoints...)
}

func TestAClientKeepsItsEndpoint(t *testing.T) {
	w := newWorld(t)
	four := []string{"10.10.10.2:8080", "10.10.10.3:8080", "10.10.20.2:8080", "10.10.20.3:8080", "[fd00:10:10::2]:8080", "[fd00:10:10::3]:8080"}
	m := portal.NewMemo(options())
	at := func(s snapshot) { w.apply(m.Compute(service.Snapshot(s))) }
	for _, vip := range []string{"10.100.87.105:80", "[fd00:100::105]:80"} {
		at(sticky(3*time.Hour, four...))
		met := map[string]bool{}
		for _, from := range map[bool][]string{true: {"10.10.10.2", "10.10.10.3", "10.20.30.62", "10.10.10.1"}, false: {"fd00:10:10::2", "fd00:10:10::3"}}[strings.Contains(vip, ".")] {
			w.reaches(packet(from, vip))
			first := w.agree(packet(from, vip))
			met[first] = true
			for range 12 {
				if got := w.agree(packet(from, vip)); got != first {
					t.Fatalf("%s met %s, then %s", from, first, got)
				}
			}
			var rest []string
			for _, ep := range four {
				if !strings.Contains(ep, first) {
					rest = append(rest, ep)
				}
			}
			at(sticky(3*time.Hour, rest...)) // its endpoint leaves
			w.reaches(packet(from, vip))
			second := w.agree(packet(from, vip))
			at(sticky(3*time.Hour, four...)) // and comes back: the client stays where it went
			for range 12 {
				if got := w.agree(packet(from, vip)); got != second || got == first {
					t.Fatalf("%s met %s, which left, then %s, then %s", from, first, second, got)
				}
			}
		}
	}
	nstest.Run(t, w.node, "nft", "list", "ruleset")
	if n := clients(t, w.d); n == 0 {
		t.Error("nobody is noted")
	}
	at(newSnapshot())
	if n := clients(t, w.d); n != 0 {
		t.Errorf("%d clients of a service that is gone are noted", n)
	}
}

// reaches waits until neighbours have found each other, which takes IPv6 its time.
func (w *world) reaches(p portal.Packet) {
	for deadline := time.Now().Add(5 * time.Second); w.dial(p) == "silence" && time.Now().Before(deadline); {
		continue
	}
}

func clients(t *testing.T, d *DataPlane) (n int) {
	t.Helper()
	for _, tab := range d.tables {
		all, err := d.c.stale(tab, &portal.Table{})
		if err != nil {
			t.Fatal(err)
		}
		n += len(all)
	}
	return n
}

// A restart, and what Apply compares, leave the clients alone that are right and take the others.
func TestARestartForgetsOnlyStaleClients(t *testing.T) {
	w := newWorld(t)
	w.apply(sticky(time.Hour, "10.10.10.3:8080").table(options()))
	w.agree(packet("10.10.10.2", "10.100.87.105:80"))
	w.d = plane(t, w.node)
	w.apply(sticky(time.Hour, "10.10.10.3:8080", "10.10.20.2:8080").table(options()))
	if n := clients(t, w.d); n != 1 {
		t.Errorf("%d clients after a restart, want 1", n)
	}
	w.d = plane(t, w.node)
	w.apply(sticky(time.Hour, "10.10.20.2:8080").table(options()))
	if n := clients(t, w.d); n != 0 {
		t.Errorf("%d clients of an endpoint that left meanwhile", n)
	}
}

func TestAffinityEnds(t *testing.T) {
	w := newWorld(t)
	w.apply(sticky(time.Second, "10.10.10.3:8080", "10.10.20.2:8080").table(options()))
	w.agree(packet("10.10.10.2", "10.100.87.105:80"))
	deadline := time.Now().Add(10 * time.Second)
	for clients(t, w.d) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("the client is still noted")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Affinity is for each group of clients its own where the policy treats them differently.
func TestAffinityOfClientsOutside(t *testing.T) {
	w := newWorld(t)
	s := newSnapshot().add(service.Service{ExternalIPs: addrs("192.0.2.1"), Ports: tcp(80), Affinity: time.Hour, ExternalPolicy: service.Local}, "web",
		"10.10.10.2:8080", "10.10.10.3:8080", "10.10.20.2:8080")
	w.apply(s.table(options()))
	for _, from := range []string{"172.16.0.100", "10.10.10.2"} {
		first := w.agree(portal.Packet{From: netip.MustParseAddr(from), To: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: service.TCP})
		for range 12 {
			if got := w.agree(packet(from, "192.0.2.1:80")); got != first {
				t.Fatalf("%s met %s, then %s", from, first, got)
			}
		}
	}
}

// An endpoint on the node itself is met in another hook than one behind it; and the node is a client like any other.
func TestAffinityToTheNodeItself(t *testing.T) {
	w := newWorld(t)
	w.apply(sticky(time.Hour, "10.20.30.62:8080", "10.10.10.3:8080").table(options()))
	for _, from := range []string{"10.10.10.2", "10.20.30.62", "172.16.0.100", "10.10.10.1", "10.10.20.9", "10.10.10.3"} {
		first := w.agree(packet(from, "10.100.87.105:80"))
		for range 12 {
			if got := w.agree(packet(from, "10.100.87.105:80")); got != first {
				t.Fatalf("%s met %s, then %s", from, first, got)
			}
		}
	}
	if n := clients(t, w.d); n != 6 {
		t.Errorf("%d clients are noted, want 6", n)
	}
}
