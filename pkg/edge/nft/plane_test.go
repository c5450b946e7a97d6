// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// generation counts the kernel's commits (NFT_MSG_GETGEN).
func generation(t testing.TB, c *conn) uint32 {
	t.Helper()
	e := enc{appendHeader(nil, subsys<<8|16, flagRequest, 99, 0, 0)}
	binary.NativeEndian.PutUint32(e.b, uint32(len(e.b)))
	if err := unix.Sendto(c.fd, e.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	msgs, err := c.receive(0)
	if err != nil || len(msgs) == 0 {
		t.Fatal(msgs, err)
	}
	return attrU32(msgs[0].body[4:], 1)
}

// What nobody has touched is not read again, however often somebody wants to be sure.
func TestForgettingCostsNothingWhereNobodyChangedARule(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	m := portal.NewMemo(options())
	apply(t, d, m.Compute(service.Snapshot(bulk(10, "0"))))
	for i, step := range []struct {
		name, others string
		read         bool
	}{
		{"nobody", "", false},
		{"still nobody", "", false},
		{"others, elsewhere", "nft add table ip elsewhere", true},
		{"nobody since", "", false},
		{"others, in our table", "nft delete element ip l3edge vips { 10.100.0.1 }", true},
		{"nobody since that was mended", "", false},
	} {
		if step.others != "" {
			nstest.Run(t, h, "sh", "-c", step.others)
		}
		d.Forget()
		if read := !d.tables[0].known; read != step.read {
			t.Errorf("%s changed a rule: it is read again: %v", step.name, read)
		}
		tab := m.Compute(service.Snapshot(bulk(10, fmt.Sprint(i%3))))
		apply(t, d, tab)
		holds(t, d, tab)
	}
}

// holds compares the kernel's elements with what the table should have.
func holds(t testing.TB, d *DataPlane, want portal.Table) {
	t.Helper()
	for _, tab := range d.tables {
		k, err := d.c.skeleton(tab)
		if err != nil {
			t.Fatal(err)
		}
		if !k.exists && !tab.used(&want) {
			continue
		}
		have, err := d.c.elements(tab, k)
		if err != nil {
			t.Fatal(err)
		}
		elems, refs := tab.wanted(&want)
		for _, c := range compareElems(elems, have) {
			t.Errorf("%s: %s %x: kernel has %q (%v), want %q (%v)", tab.f.name, tab.sets[c.set].name, c.key, c.old, c.had, c.new, c.has)
		}
		if d := cmp.Diff(refs, tab.refs, cmp.AllowUnexported(elemKey{})); d != "" {
			t.Errorf("%s: counted (-fresh +kept):\n%s", tab.f.name, d)
		}
	}
}

// randomSnapshot draws services and endpoints from small pools, so that they collide, come and go.
func randomSnapshot(r *rand.Rand) snapshot {
	s := newSnapshot()
	pick := func(format string, n int) []netip.Addr {
		if r.IntN(3) == 0 {
			return nil
		}
		return addrs(fmt.Sprintf(format, r.IntN(n)))
	}
	for i := range r.IntN(6) {
		svc := service.Service{
			ClusterIPs: pick("10.100.0.%d", 6), LoadBalancers: pick("198.51.100.%d", 4), ExternalIPs: pick("192.0.2.%d", 4),
			Ports: tcp(uint16(80+r.IntN(2)), uint16(30080+r.IntN(3))), ExternalPolicy: service.Policy(r.IntN(2)), InternalPolicy: service.Policy(r.IntN(2)),
		}
		if r.IntN(4) == 0 {
			svc.SourceRanges = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("10.10.10.2/32")}
		}
		if r.IntN(3) == 0 {
			svc.Affinity = time.Duration(1+r.IntN(2)) * time.Hour
		}
		if r.IntN(3) == 0 {
			svc.ClusterIPs = append(svc.ClusterIPs, addrs(fmt.Sprintf("fd00:100::%d", r.IntN(4)))...)
		}
		var eps []string
		for range r.IntN(5) {
			eps = append(eps, fmt.Sprintf("10.10.%d.%d:8080", 10+10*r.IntN(2), 2+r.IntN(2)))
		}
		if r.IntN(2) == 0 {
			eps = append(eps, fmt.Sprintf("[fd00:10:10::%d]:8080", 2+r.IntN(2)))
		}
		s.add(svc, fmt.Sprint("svc", i), eps...)
	}
	return s
}

func TestStepsLeadWhereAFreshStartLeads(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	r := rand.New(rand.NewPCG(1, 2))
	memo := portal.NewMemo(options())
	for range 150 {
		tab := memo.Compute(service.Snapshot(randomSnapshot(r)))
		apply(t, d, tab)
		holds(t, d, tab)
		if t.Failed() {
			return
		}
	}
	nstest.Run(t, h, "nft", "list", "ruleset")
}

// Real packets, the program in the kernel and Trace agree, whatever the services are.
func TestFuzzedTrafficAgreesWithTrace(t *testing.T) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(3, 4))
	from := addrs("10.10.10.2", "10.10.10.3", "10.10.10.1", "172.16.0.100", "10.10.20.9")
	n, silent := 0, 0
	for range 25 {
		w.apply(randomSnapshot(r).table(options()))
		for range 40 {
			p := portal.Packet{From: from[r.IntN(len(from))], Protocol: service.TCP, Port: uint16(80 + r.IntN(2))}
			switch r.IntN(4) {
			case 0:
				p.To = netip.MustParseAddr(fmt.Sprintf("10.100.0.%d", r.IntN(6)))
			case 1:
				p.To = netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", r.IntN(4)))
			case 2:
				p.To = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", r.IntN(4)))
			case 3:
				p.To, p.Port = netip.MustParseAddr("10.20.30.62"), uint16(30080+r.IntN(3))
			}
			switch portal.Trace(w.table, p).Verdict {
			case portal.Pass: // where it goes is the network's affair
				continue
			case portal.Silence:
				if silent++; silent > 8 { // each costs a timeout
					continue
				}
			}
			w.agree(p)
			n++
		}
	}
	if n < 200 {
		t.Errorf("only %d packets were worth sending", n)
	}
}

func TestARestartChangesNothing(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	apply(t, d, full())
	before := generation(t, d.c)
	again := plane(t, h)
	apply(t, again, full())
	apply(t, again, full())
	if now := generation(t, again.c); now != before {
		t.Errorf("a restart committed %d transactions", now-before)
	}
	holds(t, again, full())
}

// Whatever others did to our tables, an Apply that reads the kernel mends it; whatever is theirs stays.
func TestDamageIsMended(t *testing.T) {
	for name, harm := range map[string]string{
		"the ruleset was flushed":          "flush ruleset",
		"a rule was deleted":               "flush chain ip l3edge prerouting",
		"a rule was added":                 "add rule ip l3edge postrouting counter",
		"a chain was deleted":              "delete chain ip l3edge filter-input",
		"an element was deleted":           "delete element ip l3edge svc { 10.100.87.105 . tcp . 80 }",
		"an element was added":             "add element ip l3edge none { 10.100.87.106 . tcp . 80 : drop }",
		"an element was changed":           "delete element ip l3edge svc { 10.100.87.105 . tcp . 80 }; add element ip l3edge svc { 10.100.87.105 . tcp . 80 : goto n1 }",
		"a set has another shape":          "delete table ip l3edge; add table ip l3edge; add set ip l3edge svc { type ipv4_addr; }",
		"a chain hangs elsewhere":          "delete table ip l3edge; add table ip l3edge; add chain ip l3edge prerouting { type filter hook input priority 0; }",
		"somebody has a class chain empty": "flush chain ip l3edge n3",
	} {
		t.Run(name, func(t *testing.T) {
			h := nstest.New(t)
			d := plane(t, h)
			apply(t, d, full())
			ours := func() string { return nstest.Sh(t, h, "nft list table ip l3edge; nft list table ip6 l3edge") }
			want := ours()
			nstest.Run(t, h, "nft", harm+"; add table inet others; add chain inet others c { type filter hook input priority 5; }")
			apply(t, plane(t, h), full()) // a restart reads the kernel
			if got := nstest.Run(t, h, "nft", "list", "tables"); !strings.Contains(got, "inet others") {
				t.Error("somebody else's table is gone")
			}
			if d := cmp.Diff(lines(want), lines(ours())); d != "" {
				t.Errorf("(-before +mended):\n%s", d)
			}
		})
	}
}

func lines(s string) map[string]int {
	m := map[string]int{}
	for _, l := range normal(s) {
		m[l]++
	}
	return m
}

// A change that meets a kernel that somebody else changed does not fail: it reads and tries again.
func TestChangeOverDamage(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	apply(t, d, full())
	nstest.Run(t, h, "nft", "flush", "ruleset")
	s := newSnapshot().add(service.Service{ClusterIPs: addrs("10.100.0.1"), Ports: tcp(80)}, "web", "10.10.10.2:80")
	apply(t, d, s.table(options()))
	holds(t, d, s.table(options()))
}

func TestCleanup(t *testing.T) {
	h := nstest.New(t)
	nstest.Run(t, h, "nft", "add table ip l3edge_hostports; add table inet others")
	d := plane(t, h)
	apply(t, d, full())
	for range 2 { // also when there is nothing left
		if err := d.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := nstest.Run(t, h, "nft", "list", "tables"); got != "table ip l3edge_hostports\ntable inet others\n" {
		t.Errorf("left: %s", got)
	}
	apply(t, d, full())
	holds(t, d, full())
}

// bulk is n services of three endpoints each.
func bulk(n int, salt string) snapshot {
	s := newSnapshot()
	for i := range n {
		s.add(service.Service{ClusterIPs: addrs(fmt.Sprintf("10.100.%d.%d", i/250, i%250+1)), Ports: tcp(80)}, fmt.Sprint("s", i),
			fmt.Sprintf("10.10.%d.%d:8080", i/250, i%250+1), fmt.Sprintf("10.11.%d.%d:8080", i/250, i%250+1), fmt.Sprintf("10.12.%d.%d:808%s", i/250, i%250+1, salt))
	}
	return s
}

// A load that no transaction can take is split, and the result is the same.
func TestLargeLoadsAreSplit(t *testing.T) {
	for name, limit := range map[string]int{"the size of a user namespace's socket": 100 << 10, "absurdly small": 4 << 10} {
		t.Run(name, func(t *testing.T) {
			d := plane(t, nstest.New(t))
			d.c.limit = limit
			for _, s := range []snapshot{bulk(2000, "0"), bulk(2000, "1"), bulk(500, "1"), newSnapshot()} {
				apply(t, d, s.table(options()))
				holds(t, d, s.table(options()))
			}
		})
	}
}

func benchPlane(b *testing.B, n int) (*DataPlane, snapshot, *portal.Memo) {
	h := nstest.New(b)
	d := plane(b, h)
	s, m := bulk(n, "0"), portal.NewMemo(options())
	apply(b, d, m.Compute(service.Snapshot(s)))
	return d, s, m
}

// BenchmarkLoad is a start: the whole table into an empty kernel.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 1000, 10000, 30000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t := bulk(n, "0").table(options())
			for b.Loop() {
				b.StopTimer()
				d := plane(b, nstest.New(b))
				b.StartTimer()
				apply(b, d, t)
			}
		})
	}
}

// BenchmarkEndpointChange is one endpoint replaced, from Delta to committed. It must be flat.
func BenchmarkEndpointChange(b *testing.B) {
	for _, n := range []int{100, 1000, 10000, 30000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d, s, m := benchPlane(b, n)
			name := service.Name{Namespace: "default", Name: "s7"}
			one := service.Snapshot(s).Delta()[name]
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				now := *one
				now.Endpoints = [][]service.Endpoint{slices.Clone(one.Endpoints[0])}
				now.Endpoints[0][0].Addr = netip.AddrPortFrom(one.Endpoints[0][0].Addr.Addr(), uint16(1000+i%2))
				apply(b, d, m.Update(service.Delta{name: &now}))
			}
		})
	}
}

func TestEndpointsKeepTheirSlots(t *testing.T) {
	ep := func(list string) (out []netip.AddrPort) {
		for _, c := range list {
			out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(c)}), 80))
		}
		return out
	}
	for _, row := range []struct{ sentence, was, want, now string }{
		{"at first they are sorted", "", "abc", "abc"},
		{"nothing changes", "cab", "abc", "cab"},
		{"one more takes the next slot", "bcd", "abcd", "bcda"},
		{"one is replaced where it was", "abcd", "abde", "abed"},
		{"the last moves to where one is missing", "abcd", "bcd", "dbc"},
		{"the last one goes", "dbca", "bcd", "dbc"},
		{"several go", "abcdef", "bf", "fb"},
		{"all are others", "abc", "xyz", "xyz"},
		{"none is left", "abc", "", ""},
	} {
		if got := settle(ep(row.was), ep(row.want)); !slices.Equal(got, ep(row.now)) {
			t.Errorf("%s: %v", row.sentence, got)
		}
	}
}

// However the slots came about, a restart leaves them alone.
func TestARestartKeepsSlots(t *testing.T) {
	h := nstest.New(t)
	d, m := plane(t, h), portal.NewMemo(options())
	web := func(eps ...string) portal.Table {
		return m.Compute(service.Snapshot(newSnapshot().add(service.Service{ClusterIPs: addrs("10.100.0.1"), Ports: tcp(80)}, "web", eps...)))
	}
	apply(t, d, web("10.10.10.2:80", "10.10.10.3:80", "10.10.10.4:80", "10.10.10.9:80"))
	apply(t, d, web("10.10.10.3:80", "10.10.10.4:80", "10.10.10.5:80", "10.10.10.1:80"))
	before := generation(t, d.c)
	again := plane(t, h)
	apply(t, again, web("10.10.10.3:80", "10.10.10.4:80", "10.10.10.5:80", "10.10.10.1:80"))
	if now := generation(t, d.c); now != before {
		t.Errorf("a restart made %d transactions", now-before)
	}
	apply(t, again, web("10.10.10.3:80"))
	holds(t, again, web("10.10.10.3:80"))
}

// Chains that nothing leads to any more go when the kernel is read again: whoever invents timeouts leaves nothing behind.
func TestIdleChainsGo(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	for i := range 5 {
		s := sticky(time.Duration(100+i)*time.Second, "10.10.10.2:80", "10.10.10.3:80")
		apply(t, d, s.table(options())) // another memo's each time: read again
		holds(t, d, s.table(options()))
	}
	listing := nstest.Run(t, h, "nft", "list", "table", "ip", "l3edge")
	for i := range 5 {
		if got := strings.Contains(listing, fmt.Sprintf("chain k%d ", 100+i)); got != (i == 4) {
			t.Errorf("chain k%d is there: %v", 100+i, got)
		}
	}
}

// BenchmarkManyEndpoints is one endpoint replaced of one service that has many.
func BenchmarkManyEndpoints(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var eps []string
			for i := range n {
				eps = append(eps, fmt.Sprintf("10.10.%d.%d:8080", i/250, i%250+1))
			}
			s := newSnapshot().add(service.Service{ClusterIPs: addrs("10.100.0.1"), Ports: tcp(80)}, "web", eps...)
			d, m := plane(b, nstest.New(b)), portal.NewMemo(options())
			apply(b, d, m.Compute(service.Snapshot(s)))
			name := service.Name{Namespace: "default", Name: "web"}
			one := m.All()[name]
			b.ResetTimer()
			for i := range b.N {
				now := *one
				now.Endpoints = [][]service.Endpoint{slices.Clone(one.Endpoints[0])}
				now.Endpoints[0][n/2].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, byte(i), 1}), 8080)
				apply(b, d, m.Update(service.Delta{name: &now}))
			}
		})
	}
}

// BenchmarkScale is one endpoint more or less: the kernel validates the map of all services then, once for a transaction.
func BenchmarkScale(b *testing.B) {
	for _, n := range []int{100, 1000, 10000, 30000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d, s, m := benchPlane(b, n)
			name := service.Name{Namespace: "default", Name: "s7"}
			one := service.Snapshot(s).Delta()[name]
			b.ResetTimer()
			for i := range b.N {
				now := *one
				now.Endpoints = [][]service.Endpoint{one.Endpoints[0][:2+i%2]}
				apply(b, d, m.Update(service.Delta{name: &now}))
			}
		})
	}
}

// What is on the node is everything until its node file says otherwise, and may change after: each range overlaps the one
// before it.
func TestTheNodeBecomesKnown(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	for _, pods := range []string{"", "10.10.0.0/16", "10.10.10.0/24", "10.10.0.0/17", "10.10.10.0/24", ""} {
		o := options()
		if o.Node = (node.Node{}); pods != "" {
			o.Node.PodSubnets = []netip.Prefix{netip.MustParsePrefix(pods)}
		}
		want := portal.NewMemo(o).Compute(service.Snapshot(bulk(3, "0")))
		apply(t, d, want)
		holds(t, d, want)
	}
}
