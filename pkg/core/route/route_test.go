// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

// minion1 is kubminion1 of the lab: 10.20.30.62 on link 2, pods in 10.10.10.0/24, and its bridge on link 3.
var minion1 = Input{
	Policy: Policy{
		Accept: []Accept{AcceptAll(pfx("10.10.0.0/16"))},
		Own:    []netip.Prefix{pfx("10.10.10.0/24")},
	},
	Topology: Topology{
		OnLink: []OnLink{{pfx("10.20.30.0/24"), 2}, {pfx("10.10.10.0/24"), 3}},
		Self:   []netip.Addr{addr("10.20.30.62"), addr("10.10.10.1")},
	},
}

// told writes what the MLS told as "prefix nexthop"; a prefix that is there twice has two ways.
func told(paths []string) (out []Learned) {
	for _, s := range paths {
		prefix, nh, _ := strings.Cut(s, " ")
		v := Via{NextHop: addr(nh), Peer: addr("10.20.30.1")}
		if i := slices.IndexFunc(out, func(l Learned) bool { return l.Prefix == pfx(prefix) }); i >= 0 {
			out[i].Via = append(out[i].Via, v)
		} else {
			out = append(out, Learned{Prefix: pfx(prefix), Via: []Via{v}})
		}
	}
	return out
}

func TestComputePaths(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*Input)
		paths   []string
		fib     string // one line per prefix
		refused string
	}{
		{name: "another node's subnet goes through the MLS", paths: []string{"10.10.30.0/24 10.20.30.1"}, fib: "+ 10.10.30.0/24: via 10.20.30.1\n"},
		{name: "a neighbour on the same segment is reached directly", paths: []string{"10.10.20.0/24 10.20.30.63"}, fib: "+ 10.10.20.0/24: via 10.20.30.63\n"},
		{name: "a next hop beyond the segment goes through the peer that named it", paths: []string{"10.10.30.0/24 192.168.10.64"}, fib: "+ 10.10.30.0/24: via 10.20.30.1\n"},
		{name: "equal paths share the load", paths: []string{"10.10.20.0/24 10.20.30.3", "10.10.20.0/24 10.20.30.2"}, fib: "+ 10.10.20.0/24: via 10.20.30.2 10.20.30.3\n"},
		{name: "the same gateway twice is one hop", paths: []string{"10.10.30.0/24 192.168.10.64", "10.10.30.0/24 192.168.10.65"}, fib: "+ 10.10.30.0/24: via 10.20.30.1\n"},
		{name: "own subnet is never learned", paths: []string{"10.10.10.0/24 10.20.30.1"}, refused: "10.10.10.0/24: inside own pod subnet 10.10.10.0/24\n"},
		{name: "a part of the own subnet is never learned", paths: []string{"10.10.10.128/25 10.20.30.1"}, refused: "10.10.10.128/25: inside own pod subnet 10.10.10.0/24\n"},
		{name: "a stranger's prefix is refused", paths: []string{"10.99.0.0/24 10.20.30.1"}, refused: "10.99.0.0/24: outside the accepted prefixes\n"},
		{name: "a prefix around the cluster is refused", paths: []string{"10.0.0.0/8 10.20.30.1"}, refused: "10.0.0.0/8: outside the accepted prefixes\n"},
		{name: "a single host is refused", paths: []string{"10.10.20.7/32 10.20.30.1"}, refused: "10.10.20.7/32: longer than /28 in 10.10.0.0/16\n"},
		{
			name: "a single host is welcome when asked for", paths: []string{"10.10.20.7/32 10.20.30.1"}, fib: "+ 10.10.20.7/32: via 10.20.30.1\n",
			change: func(in *Input) { in.Policy.Accept[0].Max = 32 },
		},
		{
			name: "an aggregate may be too short", paths: []string{"10.10.0.0/17 10.20.30.1"}, refused: "10.10.0.0/17: shorter than /20 in 10.10.0.0/16\n",
			change: func(in *Input) { in.Policy.Accept[0].Min = 20 },
		},
		{name: "the default route is not wanted", paths: []string{"0.0.0.0/0 10.20.30.1"}, refused: "0.0.0.0/0: default route not wanted\n"},
		{
			name: "the default route is welcome when asked for", paths: []string{"0.0.0.0/0 10.20.30.1"}, fib: "+ 0.0.0.0/0: via 10.20.30.1\n",
			change: func(in *Input) { in.Policy.Default = true },
		},
		{name: "this node is no next hop for itself", paths: []string{"10.10.20.0/24 10.20.30.62"}, refused: "10.10.20.0/24: next hop 10.20.30.62 is this node\n"},
		{name: "a loopback next hop is none", paths: []string{"10.10.20.0/24 127.0.0.1"}, refused: "10.10.20.0/24: next hop 127.0.0.1 cannot be one\n"},
		{name: "a zero next hop is none", paths: []string{"10.10.20.0/24 0.0.0.0"}, refused: "10.10.20.0/24: next hop 0.0.0.0 cannot be one\n"},
		{
			name: "without a link nothing can be reached", paths: []string{"10.10.20.0/24 10.20.30.63"},
			change:  func(in *Input) { in.Topology.OnLink = nil },
			refused: "10.10.20.0/24: next hop 10.20.30.63 is not on a connected link, nor is the peer, and no gateway leads there\n",
		},
		{
			name: "one bad path does not spoil the good one", paths: []string{"10.10.20.0/24 127.0.0.1", "10.10.20.0/24 10.20.30.63"},
			fib: "+ 10.10.20.0/24: via 10.20.30.63\n", refused: "10.10.20.0/24: next hop 127.0.0.1 cannot be one\n",
		},
		{
			name: "the longest connected prefix names the link", paths: []string{"10.10.20.0/24 10.20.30.200"},
			change: func(in *Input) { in.Topology.OnLink = append(in.Topology.OnLink, OnLink{pfx("10.20.30.192/26"), 9}) },
			fib:    "+ 10.10.20.0/24: via 10.20.30.200\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := minion1
			in.Policy.Accept = append([]Accept{}, minion1.Policy.Accept...)
			if tt.change != nil {
				tt.change(&in)
			}
			in.Learned = told(tt.paths)
			got := Compute(in)
			if diff := cmp.Diff(tt.fib, Diff(got.FIB, nil).String()); diff != "" {
				t.Errorf("FIB (-want +got):\n%s", diff)
			}
			var refused string
			for _, r := range got.Refused {
				refused += fmt.Sprintf("%s: %s\n", r.Prefix, r.Reason)
			}
			if diff := cmp.Diff(tt.refused, refused); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolveNamesTheLongestLink(t *testing.T) {
	topo := Topology{OnLink: []OnLink{{pfx("10.20.30.0/24"), 2}, {pfx("10.20.30.192/26"), 9}}}
	hop, reason := topo.Resolve(pfx("10.10.20.0/24"), Via{NextHop: addr("10.20.30.200")})
	if want := (NextHop{Gateway: addr("10.20.30.200"), Link: 9}); hop != want || reason != "" {
		t.Errorf("got %v %q, want %v", hop, reason, want)
	}
}

func TestMartiansAreNeverLearned(t *testing.T) {
	all := Policy{Default: true, Accept: []Accept{{pfx("0.0.0.0/0"), 0, 32}, {pfx("::/0"), 0, 128}}, Own: []netip.Prefix{pfx("10.10.10.0/24")}}
	for _, p := range []string{
		"127.0.0.0/8", "127.0.0.1/32", "224.0.0.0/4", "239.1.2.0/24", "255.255.255.255/32", "169.254.169.254/32", "0.1.2.0/24",
		"::1/128", "::/128", "fe80::/10", "fe80::/64", "ff02::/16", "::ffff:10.0.0.0/104",
	} {
		if all.Refuses(pfx(p)) == "" {
			t.Errorf("%s may be learned", p)
		}
	}
	for _, p := range []string{"0.0.0.0/0", "::/0", "128.0.0.0/1", "10.10.20.0/24", "240.1.0.0/16", "fd00::/8"} {
		if reason := all.Refuses(pfx(p)); reason != "" {
			t.Errorf("%s may not be learned: %s", p, reason)
		}
	}
	all.Default = false
	for _, a := range all.Never() {
		for _, bits := range []int{a.Min, a.Max} {
			if p := netip.PrefixFrom(a.Prefix.Addr(), bits); all.Refuses(p) == "" {
				t.Errorf("%s is never passed on, and yet learned", p)
			}
		}
	}
	topo := Topology{OnLink: []OnLink{{pfx("10.10.10.0/24"), 3}, {pfx("10.20.30.0/24"), 2}}}
	for _, via := range [][]Via{
		{{NextHop: addr("10.10.10.7"), Peer: addr("10.20.30.1")}},
		{{NextHop: addr("10.10.10.7"), Peer: addr("10.20.30.1")}, {NextHop: addr("10.10.10.8"), Peer: addr("10.20.30.1")}},
	} {
		entry, refused := Choose(all, NewResolver(topo), Learned{Prefix: pfx("10.10.20.0/24"), Via: via})
		if !entry.Unreachable() || len(refused) != len(via) || refused[0].Reason != "next hop 10.10.10.7 is inside own pod subnet 10.10.10.0/24" {
			t.Errorf("a pod as the next hop: %v %v", entry, refused)
		}
	}
}

func TestComputeIntents(t *testing.T) {
	in := minion1
	in.Intents = []Intent{
		{Prefix: pfx("10.10.10.0/24"), Why: "pod subnet", Sink: true},
		{Prefix: pfx("10.100.0.0/16"), Why: "portal net", Lacks: "portald is not running"},
	}
	got := Compute(in)
	want := Decision{
		FIB:      FIB{pfx("10.10.10.0/24"): Entry{}},
		Announce: []Announcement{{Prefix: pfx("10.10.10.0/24"), Why: "pod subnet"}},
		Held:     []Held{{pfx("10.100.0.0/16"), "portal net", "portald is not running"}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("decision (-want +got):\n%s", diff)
	}
}

func TestDiff(t *testing.T) {
	via := func(gws ...string) Entry {
		var hops []NextHop
		for _, g := range gws {
			hops = append(hops, NextHop{Gateway: addr(g), Link: 2})
		}
		return NewEntry(hops...)
	}
	desired := FIB{
		pfx("10.10.10.0/24"): {},
		pfx("10.10.20.0/24"): via("10.20.30.63"),
		pfx("10.10.30.0/24"): via("10.20.30.2", "10.20.30.1"),
		pfx("10.10.50.0/24"): via("10.20.30.1"),
	}
	actual := FIB{
		pfx("10.10.20.0/24"): via("10.20.30.1"),
		pfx("10.10.30.0/24"): via("10.20.30.1", "10.20.30.2"),
		pfx("10.10.40.0/24"): via("10.20.30.1"),
		pfx("10.10.50.0/24"): {Hops: []NextHop{{Gateway: addr("10.20.30.1"), Link: 7}}},
	}
	want := `+ 10.10.10.0/24: unreachable
~ 10.10.20.0/24: via 10.20.30.1 -> via 10.20.30.63
- 10.10.40.0/24: via 10.20.30.1
~ 10.10.50.0/24: via 10.20.30.1 -> via 10.20.30.1
`
	if diff := cmp.Diff(want, Diff(desired, actual).String()); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if p := Diff(desired, desired); len(p) != 0 {
		t.Errorf("a table differs from itself: %s", p)
	}
}

func TestParseAccept(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{in: "10.10.0.0/16", want: "10.10.0.0/16"},
		{in: "10.10.0.0/16,max=32", want: "10.10.0.0/16,max=32"},
		{in: "10.10.0.0/16,min=24,max=24", want: "10.10.0.0/16,min=24,max=24"},
		{in: "192.0.2.1/32", want: "192.0.2.1/32"},
		{in: "2001:db8::/32", want: "2001:db8::/32"},
		{in: "10.10.0.0/16,max=12", err: "max=12 is not a length from 16 to 32"},
		{in: "10.10.0.0/16,le=24", err: `"le=24" is not an option: min=N or max=N`},
		{in: "10.10.0.0/16,min=30", err: "min=30 is longer than max=28"},
		{in: "10.10.0.1/16", err: "10.10.0.1/16 has host bits set: did you mean 10.10.0.0/16?"},
		{in: "mls", err: `"mls" is not a prefix`},
	}
	for _, tt := range tests {
		got, err := ParseAccept(tt.in)
		switch {
		case tt.err != "" && (err == nil || err.Error() != tt.err):
			t.Errorf("%s: error %v, want %s", tt.in, err, tt.err)
		case tt.err == "" && (err != nil || got.String() != tt.want):
			t.Errorf("%s: got %s, %v", tt.in, got, err)
		}
	}
}
