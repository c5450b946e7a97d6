// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// dualNode is node with IPv6 besides, and its link's index.
func dualNode(t testing.TB) (n, mls *netns.Handle, table *Table, link int) {
	t.Helper()
	n, mls, table, link = node(t)
	nstest.Sh(t, n, "ip addr add 2001:db8:20:30::62/64 dev ens18 nodad")
	nstest.Sh(t, mls, "ip addr add 2001:db8:20:30::1/64 dev p1 nodad; ip addr add fe80::1/64 dev p1 nodad")
	return n, mls, table, link
}

// show6 is ip -6 route show of ours.
func show6(t testing.TB, n *netns.Handle) string {
	t.Helper()
	out := nstest.Run(t, n, "ip", "-6", "route", "show", "proto", "103")
	out = regexp.MustCompile(`nhid \d+ | pref medium| error -\d+`).ReplaceAllString(out, "")
	out = regexp.MustCompile(`(?m)^(\S+) metric 103 *\n\s*nexthop (.*) weight 1 *\n(\s+nexthop.*\n)*`).ReplaceAllStringFunc(out, oneLine)
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// oneLine writes a group of one hop as iproute2 does for IPv4.
func oneLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) != 2 {
		return s
	}
	dst, _, _ := strings.Cut(lines[0], " ")
	hop := strings.TrimSuffix(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[1]), "nexthop")), " weight 1")
	return dst + " " + strings.TrimSpace(hop) + " metric 103\n"
}

// answers checks that packets reach addr and come back: nobody listens there, and that is what is said.
func answers(t *testing.T, n *netns.Handle, addr string) {
	t.Helper()
	nstest.Do(t, n, func() error {
		for end := time.Now().Add(15 * time.Second); ; {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "9"), 5*time.Second)
			if err == nil {
				return c.Close()
			}
			if errors.Is(err, syscall.ECONNREFUSED) {
				return nil
			}
			// The link-local address that asks for the neighbour may still look for duplicates of itself.
			if !errors.Is(err, syscall.EHOSTUNREACH) || time.Now().After(end) {
				return err
			}
		}
	})
}

func TestTopologyOfBothFamilies(t *testing.T) {
	n, _, table, link := dualNode(t)
	nstest.Sh(t, n, `
		ip route add default via 10.20.30.1
		ip route add default via 10.20.30.9 metric 500
		ip route add 172.16.0.0/16 via 10.20.30.2 proto bird
		ip -6 route add default via fe80::1 dev ens18 proto ra`)
	topo, err := table.Topology()
	if err != nil {
		t.Fatal(err)
	}
	if !topo.Reaches(addr("2001:db8:20:30::1")) || !topo.Reaches(addr("fe80::1%ens18")) || topo.Reaches(addr("fe80::1%lo9")) {
		t.Errorf("links %v %v", topo.OnLink, topo.Links)
	}
	tests := []struct{ prefix, nexthop, want string }{
		{"10.10.30.0/24", "192.0.2.1", "10.20.30.1"},
		{"10.10.30.0/24", "172.16.0.1", "10.20.30.1"}, // not what another routing daemon says
		{"2001:db8:10:30::/64", "2001:db8:99::1", "fe80::1"},
	}
	for _, tt := range tests {
		hop, reason := topo.Resolve(pfx(tt.prefix), route.Via{NextHop: addr(tt.nexthop), Peer: addr(tt.nexthop)})
		if hop != (route.NextHop{Gateway: addr(tt.want), Link: link}) {
			t.Errorf("%s via %s: got %v %s, want %s", tt.prefix, tt.nexthop, hop, reason, tt.want)
		}
	}
}

func TestApplyIPv6(t *testing.T) {
	n, _, table, link := dualNode(t)
	others := nstest.Sh(t, n, `
		ip -6 route add 2001:db8:10:20::/64 via 2001:db8:20:30::9 proto static
		ip -6 route show proto static`)
	p := pfx("2001:db8:10:20::/64")
	steps := []struct {
		name string
		want route.FIB
		show string
	}{
		{"one gateway", route.FIB{p: via(link, "2001:db8:20:30::1")}, "2001:db8:10:20::/64 via 2001:db8:20:30::1 dev ens18 metric 103"},
		{"a link-local one", route.FIB{p: via(link, "fe80::1")}, "2001:db8:10:20::/64 via fe80::1 dev ens18 metric 103"},
		{"two gateways", route.FIB{p: via(link, "fe80::1", "fe80::2")}, "2001:db8:10:20::/64 metric 103\nnexthop via fe80::1 dev ens18 weight 1\nnexthop via fe80::2 dev ens18 weight 1"},
		{"unreachable", route.FIB{p: {}}, "unreachable 2001:db8:10:20::/64 dev lo metric 2147483647"},
		{"one gateway again", route.FIB{p: via(link, "2001:db8:20:30::1")}, "2001:db8:10:20::/64 via 2001:db8:20:30::1 dev ens18 metric 103"},
		{"the default route", route.FIB{pfx("::/0"): via(link, "fe80::1")}, "default via fe80::1 dev ens18 metric 103"},
		{"nothing", route.FIB{}, ""},
	}
	for _, s := range steps {
		become(t, table, s.want)
		if diff := cmp.Diff(s.show, show6(t, n)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	if diff := cmp.Diff(others, nstest.Run(t, n, "ip", "-6", "route", "show", "proto", "static")); diff != "" {
		t.Errorf("another's route changed (-before +after):\n%s", diff)
	}
	if nh := nstest.Run(t, n, "ip", "nexthop"); nh != "" {
		t.Errorf("objects left behind:\n%s", nh)
	}
}

// Both families through one link-local neighbour: IPv4 needs no IPv4 address on the link (RFC 8950).
func TestApplyIPv4ThroughIPv6(t *testing.T) {
	for _, objects := range []bool{true, false} {
		t.Run(fmt.Sprintf("nexthop objects %v", objects), func(t *testing.T) {
			n, mls, table, link := dualNode(t)
			nstest.Sh(t, mls, "ip addr add 10.10.30.1/32 dev lo; ip -6 addr add 2001:db8:10:30::1/128 dev lo; ip route add 10.20.30.0/24 dev p1 2>/dev/null || true")
			if !objects {
				table.hops.known, table.hops.absent = true, true
			}
			p4, p6, both := pfx("10.10.30.0/24"), pfx("2001:db8:10:30::/64"), pfx("10.10.40.0/24")
			want := route.FIB{p4: via(link, "fe80::1"), p6: via(link, "fe80::1"), both: via(link, "10.20.30.1", "fe80::1")}
			if f, err := table.Apply(route.Diff(want, nil)); err != nil || len(f) > 0 {
				t.Fatal(f, err)
			}
			have, err := table.Read()
			if err != nil {
				t.Fatal(err)
			}
			if d := route.Diff(want, have); len(d) > 0 {
				t.Fatalf("the kernel differs:\n%s", d)
			}
			wantShow := "10.10.30.0/24 via inet6 fe80::1 dev ens18 metric 103\n10.10.40.0/24 metric 103\nnexthop via 10.20.30.1 dev ens18 weight 1\nnexthop via inet6 fe80::1 dev ens18 weight 1"
			if diff := cmp.Diff(wantShow, show(t, n)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			answers(t, n, "10.10.30.1")
			answers(t, n, "2001:db8:10:30::1")
		})
	}
}

func TestWeightedHops(t *testing.T) {
	n, _, table, link := dualNode(t)
	hop := func(gw string, w int) route.NextHop { return route.NextHop{Gateway: addr(gw), Link: link, Weight: w} }
	p := pfx("10.100.87.105/32")
	become(t, table, route.FIB{p: route.NewEntry(hop("10.20.30.63", 3), hop("10.20.30.64", 1))})
	want := "10.100.87.105 metric 103\nnexthop via 10.20.30.63 dev ens18 weight 3\nnexthop via 10.20.30.64 dev ens18 weight 1"
	if diff := cmp.Diff(want, show(t, n)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	become(t, table, route.FIB{p: route.NewEntry(hop("10.20.30.63", 1), hop("10.20.30.64", 1))})
	if !strings.Contains(show(t, n), "10.20.30.63 dev ens18 weight 1") {
		t.Errorf("weights stay:\n%s", show(t, n))
	}
}

// A packet to the node's own pod subnet, or to an announced portal net, that nothing holds must not go back to the fabric.
func TestSinksStopLoops(t *testing.T) {
	n, _, table, link := dualNode(t)
	nstest.Sh(t, n, "ip route add default via 10.20.30.1; ip -6 route add default via fe80::1 dev ens18")
	become(t, table, route.FIB{pfx("10.10.10.0/24"): {}, pfx("10.100.0.0/16"): {}, pfx("2001:db8:10:10::/64"): {}, pfx("10.10.20.0/24"): via(link, "10.20.30.1")})
	for _, dst := range []string{"10.10.10.9", "10.100.3.4", "2001:db8:10:10::9"} {
		out := nstest.Sh(t, n, "ip route get "+dst+" 2>&1 || true")
		if !strings.Contains(out, "No route to host") && !strings.Contains(out, "unreachable") {
			t.Errorf("%s goes somewhere: %s", dst, out)
		}
	}
}

// manyPrefixes are n /24s, and for every third of them an IPv6 /64 besides.
func manyPrefixes(n int, e route.Entry) route.FIB {
	out := make(route.FIB, n)
	for i := range n {
		out[netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + byte(i>>16), byte(i >> 8), byte(i), 0}), 24)] = e
	}
	return out
}

func TestALostNextHopMovesAllRoutesAtOnce(t *testing.T) {
	n, _, table, link := dualNode(t)
	nstest.Sh(t, n, "sysctl -qw net.ipv4.nexthop_compat_mode=0")
	const routes, bar = 100_000, 5 * time.Millisecond
	two, one := via(link, "10.20.30.1", "10.20.30.2"), via(link, "10.20.30.2")
	want := manyPrefixes(routes, two)
	single := pfx("10.10.99.0/24")
	want[single] = one // so that the set with one hop is there already
	if f, err := table.Apply(route.Diff(want, nil)); err != nil || len(f) > 0 {
		t.Fatal(f, err)
	}
	best := time.Hour // other programs' work must not count
	var moved []route.Moved
	for try := range 5 {
		if try > 0 {
			become(t, table, want)
		}
		began := time.Now()
		var err error
		if moved, err = table.Lose(route.NextHop{Gateway: addr("10.20.30.1"), Link: link}); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(began))
	}
	t.Logf("%d routes moved in %s", routes, best)
	if best > bar {
		t.Errorf("it took %s, more than %s", best, bar)
	}
	if got := nstest.Run(t, n, "ip", "route", "get", "20.1.2.3"); !strings.Contains(got, "via 10.20.30.2") {
		t.Errorf("traffic goes %s", got)
	}
	want.Move(moved)
	have, err := table.Read()
	if err != nil {
		t.Fatal(err)
	}
	if d := route.Diff(want, have); len(d) > 0 || !have[pfx("20.1.2.0/24")].Equal(one) {
		t.Errorf("%d differences between what Lose told and the kernel", len(d))
	}
	become(t, table, route.FIB{})
	if nh := nstest.Run(t, n, "ip", "nexthop"); nh != "" {
		t.Errorf("objects left behind:\n%s", nh)
	}
}

// All routes of one set going to a set that is there already is still one message.
func TestSetsMerge(t *testing.T) {
	n, _, table, link := dualNode(t)
	const routes = 1000
	two, one := via(link, "10.20.30.1", "10.20.30.2"), via(link, "10.20.30.2")
	want := manyPrefixes(routes, two)
	single := pfx("10.10.99.0/24")
	want[single] = one
	become(t, table, want)
	after := manyPrefixes(routes, one)
	after[single] = one
	sent := table.sock.Requests()
	if f, err := table.Apply(route.Diff(after, want)); err != nil || len(f) > 0 {
		t.Fatal(f, err)
	}
	if n := table.sock.Requests() - sent; n > 3 {
		t.Errorf("%d messages, want one for the set and one for the hop that is gone", n)
	}
	become(t, table, after)
	after[single] = two
	become(t, table, after)
	if got := show(t, n); !strings.Contains(got, "10.10.99.0/24 metric 103\nnexthop via 10.20.30.1") {
		t.Error("the single route did not part from the others")
	}
	become(t, table, route.FIB{})
	if nh := nstest.Run(t, n, "ip", "nexthop"); nh != "" {
		t.Errorf("objects left behind:\n%s", nh)
	}
}

func TestSteadyGroupsKeepTheirFlows(t *testing.T) {
	n, _, table, link := dualNode(t)
	table.Steady()
	vip, other := pfx("10.100.87.105/32"), pfx("10.10.20.0/24")
	nodes := func() map[string]string { // by source, as the kernel hashes
		out := map[string]string{}
		nstest.Sh(t, n, "sysctl -qw net.ipv4.fib_multipath_hash_policy=0")
		for line := range strings.Lines(nstest.Sh(t, n, "for i in $(seq 1 120); do ip route get 10.100.87.105 from 172.16.0.$i iif ens18 | head -1; done")) {
			f := strings.Fields(line)
			out[f[2]] = line[strings.Index(line, "via"):]
		}
		return out
	}
	nstest.Sh(t, n, "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.ens18.rp_filter=0")
	three := via(link, "10.20.30.161", "10.20.30.162", "10.20.30.163")
	become(t, table, route.FIB{vip: three, other: via(link, "10.20.30.163")})
	if !strings.Contains(nstest.Run(t, n, "ip", "nexthop"), "type resilient buckets 512") {
		t.Fatal("no resilient group")
	}
	before := nodes()
	if _, err := table.Lose(route.NextHop{Gateway: addr("10.20.30.161"), Link: link}); err != nil {
		t.Fatal(err)
	}
	after, moved, stayed := nodes(), 0, 0
	for src, was := range before {
		switch {
		case strings.Contains(was, "10.20.30.161"):
			if strings.Contains(after[src], "10.20.30.161") {
				t.Errorf("%s still goes to the node that left", src)
			}
		case after[src] != was:
			moved++
		default:
			stayed++
		}
	}
	if moved > 0 || stayed < 40 {
		t.Errorf("of the flows of nodes that stay %d moved, %d did not", moved, stayed)
	}
	become(t, table, route.FIB{vip: via(link, "10.20.30.163"), other: via(link, "10.20.30.163")})
	become(t, table, route.FIB{vip: three, other: three})
	become(t, table, route.FIB{})
	if nh := nstest.Run(t, n, "ip", "nexthop"); nh != "" {
		t.Errorf("objects left behind:\n%s", nh)
	}
}

// A resync that finds nothing to do says nothing to the kernel but the dumps' requests.
func TestUnchangedResyncSendsNothing(t *testing.T) {
	_, _, table, link := dualNode(t)
	want := manyPrefixes(10_000, via(link, "10.20.30.1"))
	want[pfx("2001:db8:10:10::/64")] = route.Entry{}
	become(t, table, want)
	have, err := table.Read()
	if err != nil {
		t.Fatal(err)
	}
	sent := table.sock.Requests()
	if f, err := table.Apply(route.Diff(want, have)); err != nil || len(f) > 0 {
		t.Fatal(f, err)
	}
	if n := table.sock.Requests() - sent; n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestApplyCostsLittle compares with the order that plans have: the same requests cost the kernel more when they come sorted.
func TestApplyCostsLittle(t *testing.T) {
	_, _, table, link := node(t)
	const routes, bar = 50_000, 4 * time.Microsecond // 0.9-1.4 on a quiet machine; the bar of the bench is 2
	want := manyPrefixes(routes, via(link, "10.20.30.1"))
	apply := func(plan route.Plan) time.Duration {
		t.Helper()
		before := cpu(t)
		if f, err := table.Apply(plan); err != nil || len(f) > 0 {
			t.Fatal(f, err)
		}
		return (cpu(t) - before) / routes
	}
	// sorted removes all in the order of the prefixes, whatever Apply would do.
	sorted := func() time.Duration {
		t.Helper()
		before := cpu(t)
		b := table.sock.Batch()
		for _, c := range route.Diff(nil, want) {
			if err := b.Add(func(m []byte) []byte { return wire.DelRoute(m, c.Prefix, c.Old) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Flush(); err != nil || len(b.Refused) > 0 {
			t.Fatal(err, b.Refused)
		}
		return (cpu(t) - before) / routes
	}
	const never = time.Duration(1 << 60)
	added, removed, naive := never, never, never
	for range 3 {
		added = min(added, apply(route.Diff(want, nil)))
		removed = min(removed, apply(route.Diff(nil, want)))
		apply(route.Diff(want, nil))
		naive = min(naive, sorted())
		become(t, table, route.FIB{})
	}
	t.Logf("CPU per route: %s to add, %s to remove, %s to remove in order", added, removed, naive)
	if added > bar {
		t.Errorf("%s CPU per route, more than %s", added, bar)
	}
	if removed > naive*3/4 {
		t.Errorf("removal takes %s per route, as much as in order: %s", removed, naive)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		n    int
		want []int
	}{
		{0, nil}, {1, []int{0}}, {2, []int{0, 1}}, {5, []int{0, 4, 2, 1, 3}}, {8, []int{0, 4, 2, 6, 1, 5, 3, 7}},
	} {
		if got := slices.Collect(spread(c.n)); !slices.Equal(got, c.want) {
			t.Errorf("spread(%d) = %v, want %v", c.n, got, c.want)
		}
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
