// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

// node is a namespace with ens18 10.20.30.62/24 towards a switch, and its table.
func node(t testing.TB) (*netns.Handle, *netns.Handle, *Table, int) {
	t.Helper()
	mls, n := nstest.New(t), nstest.New(t)
	nstest.Veth(t, n, "ens18", "10.20.30.62/24", mls, "p1", "10.20.30.1/24")
	var table *Table
	nstest.Do(t, n, func() (err error) { table, err = Open(); return err })
	t.Cleanup(func() { _ = table.Close() })
	topo, err := table.Topology()
	if err != nil {
		t.Fatal(err)
	}
	if len(topo.OnLink) != 1 || topo.OnLink[0].Prefix != pfx("10.20.30.0/24") || !slices.Contains(topo.Self, addr("10.20.30.62")) {
		t.Fatalf("topology %+v", topo)
	}
	return n, mls, table, topo.OnLink[0].Link
}

func via(link int, gws ...string) route.Entry {
	var hops []route.NextHop
	for _, g := range gws {
		hops = append(hops, route.NextHop{Gateway: addr(g), Link: link})
	}
	return route.NewEntry(hops...)
}

// become brings the kernel to desired and checks that it is there.
func become(t testing.TB, table *Table, desired route.FIB) {
	t.Helper()
	have, err := table.Read()
	if err != nil {
		t.Fatal(err)
	}
	failures, err := table.Apply(route.Diff(desired, have))
	if err != nil || len(failures) > 0 {
		t.Fatalf("apply: %v %v", failures, err)
	}
	have, err = table.Read()
	if err != nil {
		t.Fatal(err)
	}
	if d := route.Diff(desired, have); len(d) > 0 {
		t.Fatalf("the kernel still differs:\n%s", d)
	}
}

func TestApply(t *testing.T) {
	n, _, table, link := node(t)
	p := pfx("10.10.20.0/24")
	steps := []struct {
		name string
		want route.FIB
		show string // ip route show proto 103
	}{
		{"one gateway", route.FIB{p: via(link, "10.20.30.1")}, "10.10.20.0/24 via 10.20.30.1 dev ens18 metric 103"},
		{"another gateway", route.FIB{p: via(link, "10.20.30.63")}, "10.10.20.0/24 via 10.20.30.63 dev ens18 metric 103"},
		{"two gateways", route.FIB{p: via(link, "10.20.30.1", "10.20.30.2")}, "10.10.20.0/24 metric 103\nnexthop via 10.20.30.1 dev ens18 weight 1\nnexthop via 10.20.30.2 dev ens18 weight 1"},
		{"unreachable", route.FIB{p: {}}, "unreachable 10.10.20.0/24 metric 2147483647"},
		{"one gateway again", route.FIB{p: via(link, "10.20.30.1")}, "10.10.20.0/24 via 10.20.30.1 dev ens18 metric 103"},
		{"the default route", route.FIB{pfx("0.0.0.0/0"): via(link, "10.20.30.1")}, "default via 10.20.30.1 dev ens18 metric 103"},
		{"nothing", route.FIB{}, ""},
	}
	for _, s := range steps {
		become(t, table, s.want)
		if diff := cmp.Diff(s.show, show(t, n)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

func show(t testing.TB, n *netns.Handle) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(nstest.Run(t, n, "ip", "route", "show", "proto", "103")) {
		lines = append(lines, strings.Join(strings.Fields(regexp.MustCompile(`nhid \d+ `).ReplaceAllString(line, "")), " "))
	}
	return strings.Join(lines, "\n")
}

func TestNexthopObjects(t *testing.T) {
	n, _, table, link := node(t)
	a, b, c := pfx("10.10.1.0/24"), pfx("10.10.2.0/24"), pfx("10.10.3.0/24")
	one, two := "10.20.30.1", "10.20.30.2"
	objects := func() string { return nstest.Run(t, n, "ip", "nexthop") }
	group := func(p netip.Prefix) string {
		return regexp.MustCompile(`nhid \d+`).FindString(nstest.Run(t, n, "ip", "route", "show", p.String()))
	}
	nstest.Sh(t, n, "ip nexthop add id 7 via 10.20.30.9 dev ens18 proto static")
	become(t, table, route.FIB{a: via(link, one, two), b: via(link, one, two), c: via(link, one)})
	if group(a) == "" || group(a) != group(b) || group(a) == group(c) {
		t.Fatalf("equal sets must share a group: %q %q %q", group(a), group(b), group(c))
	}
	before := group(a)
	become(t, table, route.FIB{a: via(link, two), b: via(link, two), c: via(link, one)})
	if group(a) != before || group(b) != before {
		t.Errorf("all routes of a set moved together, yet each was written anew: %q -> %q %q", before, group(a), group(b))
	}
	become(t, table, route.FIB{a: via(link, two), b: via(link, one), c: via(link, one)})
	if group(a) == group(b) || group(b) != group(c) {
		t.Errorf("only one route moved: %q %q %q", group(a), group(b), group(c))
	}
	other, err := func() (tb *Table, err error) {
		nstest.Do(t, n, func() error { tb, err = Open(); return err })
		return tb, err
	}()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	become(t, other, route.FIB{a: via(link, one), b: via(link, one), c: via(link, one, two)}) // the next process
	become(t, other, route.FIB{})
	if got := strings.TrimSpace(objects()); got != "id 7 via 10.20.30.9 dev ens18 scope link proto static" {
		t.Errorf("objects left behind, or a stranger's is gone:\n%s", got)
	}
}

func TestApplyLeavesOthersAlone(t *testing.T) {
	n, _, table, link := node(t)
	others := nstest.Sh(t, n, `
		ip route add 10.10.20.0/24 via 10.20.30.9 proto static
		ip route add 10.10.30.0/24 via 10.20.30.9 proto bird metric 103
		ip route add unreachable 10.10.40.0/24 proto 104
		ip route show`)
	p20, p30, p40 := pfx("10.10.20.0/24"), pfx("10.10.30.0/24"), pfx("10.10.40.0/24")
	want := route.FIB{p20: via(link, "10.20.30.1"), p30: via(link, "10.20.30.1"), p40: via(link, "10.20.30.1")}
	failures, err := table.Apply(route.Diff(want, nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(failures) != 1 || failures[0].Change.Prefix != p30 || !strings.Contains(failures[0].Error(), "another program holds this prefix at our metric 103") {
		t.Errorf("failures %v, want one about %s", failures, p30)
	}
	delete(want, p30)
	have, err := table.Read()
	if err != nil {
		t.Fatal(err)
	}
	if d := route.Diff(want, have); len(d) > 0 {
		t.Errorf("others' routes are read as ours, or ours are missing:\n%s", d)
	}
	become(t, table, route.FIB{})
	steady := strings.NewReplacer("linkdown ", "") // the link may still be coming up
	if diff := cmp.Diff(steady.Replace(others), steady.Replace(nstest.Run(t, n, "ip", "route", "show"))); diff != "" {
		t.Errorf("others' routes changed (-before +after):\n%s", diff)
	}
}

func TestApplyRefusedChangeDoesNotStopTheRest(t *testing.T) {
	_, _, table, link := node(t)
	want := route.FIB{}
	for i := range 1500 { // several batches
		want[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 11, byte(i >> 4), byte(i << 4)}), 28)] = via(link, "10.20.30.1")
	}
	bad := pfx("10.10.20.0/24")
	want[bad] = via(link, "192.0.2.1") // not on the link
	failures, err := table.Apply(route.Diff(want, nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(failures) != 1 || failures[0].Change.Prefix != bad || !strings.Contains(failures[0].Error(), "network is unreachable") {
		t.Errorf("failures %v", failures)
	}
	delete(want, bad)
	have, err := table.Read()
	if err != nil {
		t.Fatal(err)
	}
	if d := route.Diff(want, have); len(d) > 0 {
		t.Errorf("%d differences, the first: %s", len(d), d[0])
	}
}

func TestApplyIsIdempotent(t *testing.T) {
	_, _, table, link := node(t)
	want := route.FIB{pfx("10.10.20.0/24"): via(link, "10.20.30.1")}
	become(t, table, want)
	for range 2 { // somebody added it before us, or our picture was old
		if failures, err := table.Apply(route.Diff(want, nil)); err != nil || len(failures) > 0 {
			t.Errorf("adding what is there: %v %v", failures, err)
		}
	}
	other := route.FIB{pfx("10.10.20.0/24"): via(link, "10.20.30.2")}
	if failures, err := table.Apply(route.Diff(other, nil)); err != nil || len(failures) > 0 {
		t.Errorf("adding over an old one of ours: %v %v", failures, err)
	}
	become(t, table, other)
	for range 2 {
		if failures, err := table.Apply(route.Diff(nil, other)); err != nil || len(failures) > 0 {
			t.Errorf("removing what is gone: %v %v", failures, err)
		}
	}
}

func TestWatch(t *testing.T) {
	n, mls, table, link := node(t)
	var w *Watch
	nstest.Do(t, n, func() (err error) { w, err = table.Watch(); return err })
	events := make(chan Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, func(e Event) { events <- e }) }()

	p := pfx("10.10.20.0/24")
	gone := 0
	expect := func(name string, want func(Event) bool) {
		t.Helper()
		deadline := time.After(5 * time.Second)
		for {
			select {
			case e := <-events:
				if e.Gone.IsValid() {
					gone++
				}
				if want(e) {
					return
				}
			case <-deadline:
				t.Fatalf("%s: no event", name)
			}
		}
	}
	become(t, table, route.FIB{p: via(link, "10.20.30.1")})
	become(t, table, route.FIB{})
	become(t, table, route.FIB{p: via(link, "10.20.30.1")})
	nstest.Sh(t, n, "ip route del 10.10.20.0/24 proto 103")
	expect("route removed by another", func(e Event) bool { return e.Gone == p }) // links may still be coming up
	become(t, table, route.FIB{p: via(link, "10.20.30.1")})
	nstest.Sh(t, n, "ip route replace 10.10.20.0/24 via 10.20.30.9 metric 103 proto static")
	expect("route replaced by another", func(e Event) bool { return e.Gone == p })
	nstest.Sh(t, mls, "ip link set p1 down")
	expect("carrier lost", func(e Event) bool { return e.Topology && e.Link == link && !e.Routes })
	if gone != 2 {
		t.Errorf("%d routes gone were told of, want the two that others took: our own changes came back", gone)
	}
	topo, err := table.Topology()
	if err != nil || len(topo.OnLink) != 0 {
		t.Errorf("a link without carrier still counts: %+v %v", topo, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkApply(b *testing.B) {
	_, _, table, link := node(b)
	want := route.FIB{}
	for i := range 100_000 {
		want[netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i), 0}), 24)] = via(link, fmt.Sprintf("10.20.30.%d", 1+i%16))
	}
	add, del := route.Diff(want, nil), route.Diff(nil, want)
	for b.Loop() {
		if f, err := table.Apply(add); err != nil || len(f) > 0 {
			b.Fatal(f, err)
		}
		b.StopTimer()
		if f, err := table.Apply(del); err != nil || len(f) > 0 {
			b.Fatal(f, err)
		}
		b.StartTimer()
	}
}
