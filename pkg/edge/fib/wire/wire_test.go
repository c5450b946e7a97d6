// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/route"
)

var (
	pfx     = netip.MustParsePrefix
	addr    = netip.MustParseAddr
	compare = []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
)

// only is the body of the one message in data.
func only(t *testing.T, data []byte, typ uint16) []byte {
	t.Helper()
	var got []byte
	n := 0
	if err := Each(data, func(h Header, body []byte) error { n++; got = body; return nil }); err != nil || n != 1 {
		t.Fatalf("%d messages, %v", n, err)
	}
	if Native.Uint16(data[4:]) != typ {
		t.Fatalf("type %d, want %d", Native.Uint16(data[4:]), typ)
	}
	return got
}

// TestRoutesAreReadAsTheyAreWritten holds the two directions against each other; the kernel holds them to its own in fib.
func TestRoutesAreReadAsTheyAreWritten(t *testing.T) {
	hop := func(gw string, weight int) route.NextHop {
		return route.NextHop{Gateway: addr(gw), Link: 3, Weight: weight}
	}
	for _, c := range []struct {
		name   string
		prefix string
		entry  route.Entry
		id     uint32
	}{
		{"one hop", "10.10.20.0/24", route.NewEntry(hop("10.20.30.1", 0)), 0},
		{"a default route", "0.0.0.0/0", route.NewEntry(hop("10.20.30.1", 0)), 0},
		{"two hops with weights", "10.10.20.0/24", route.NewEntry(hop("10.20.30.1", 3), hop("10.20.30.2", 1)), 0},
		{"IPv6", "2001:db8::/64", route.NewEntry(hop("fe80::1", 0)), 0},
		{"IPv4 through IPv6", "10.10.20.0/24", route.NewEntry(hop("fe80::1", 0)), 0},
		{"a sink", "10.10.10.0/24", route.Entry{}, 0},
		{"a nexthop object", "10.10.20.0/24", route.NewEntry(hop("10.20.30.1", 0)), 1728053249},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ok := ParseRoute(only(t, NewRoute(nil, pfx(c.prefix), c.entry, c.id, unix.NLM_F_EXCL), unix.RTM_NEWROUTE))
			want := Seen{Prefix: pfx(c.prefix), Entry: c.entry, Protocol: mark.RouteRouted, Metric: Metric, Sink: c.entry.Unreachable()}
			if want.Sink {
				want.Metric = metricSink
			}
			if c.id != 0 {
				want.Nexthop, want.Entry = c.id, route.NewEntry(route.NextHop{})
			}
			if d := cmp.Diff(want, s, compare...); !ok || !s.Ours() || d != "" {
				t.Errorf("ok %v, ours %v\n%s", ok, s.Ours(), d)
			}
		})
	}
}

func TestNexthopsAreReadAsTheyAreWritten(t *testing.T) {
	hop := Nexthop{ID: 7, Hop: route.NextHop{Gateway: addr("10.20.30.1"), Link: 3}}
	if got, ok := ParseNexthop(only(t, AppendHop(nil, hop.ID, hop.Hop), NewNexthop)); !ok || cmp.Diff(hop, got, compare...) != "" {
		t.Errorf("%v %+v", ok, got)
	}
	for _, steady := range []bool{false, true} {
		group := Nexthop{ID: 8, IsGroup: true, Members: []Member{{7, 1}, {9, 256}}, Steady: steady}
		if got, ok := ParseNexthop(only(t, AppendGroup(nil, group, unix.NLM_F_EXCL), NewNexthop)); !ok || cmp.Diff(group, got, compare...) != "" {
			t.Errorf("%v %+v", ok, got)
		}
	}
	if body := only(t, AppendDelNexthop(nil, 7), DelNexthop); body[2] != 0 {
		t.Error("the kernel refuses a removal that names a protocol")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(NewRoute(nil, pfx("10.10.20.0/24"), route.NewEntry(route.NextHop{Gateway: addr("fe80::1"), Link: 3}), 0, 0))
	f.Add(AppendGroup(nil, Nexthop{ID: 8, Members: []Member{{7, 1}}, Steady: true}, unix.NLM_F_EXCL))
	short := NewRoute(nil, pfx("10.10.20.0/24"), route.Entry{}, 0, 0)
	Native.PutUint16(short[len(short)-8:], 5) // a metric of one byte
	f.Add(short)
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = Each(data, func(h Header, body []byte) error {
			ParseRoute(body)
			ParseNexthop(body)
			_ = ackError(h, body)
			return nil
		})
	})
}
