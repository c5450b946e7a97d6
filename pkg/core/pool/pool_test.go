// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func TestNewRange(t *testing.T) {
	rows := []struct {
		name, subnet, first, last, gateway string
		want                               string // first-last gateway size, or part of the error
	}{
		{"a /24 gives 2 to 254", "10.10.10.0/24", "", "", "", "10.10.10.1-10.10.10.254 gw 10.10.10.1 size 253"},
		{"a gateway in the middle", "10.10.10.0/24", "", "", "10.10.10.9", "10.10.10.1-10.10.10.254 gw 10.10.10.9 size 253"},
		{"a part of it", "10.10.10.0/24", "10.10.10.100", "10.10.10.109", "", "10.10.10.100-10.10.10.109 gw 10.10.10.1 size 10"},
		{"the whole subnet as range is cut to hosts", "10.10.10.0/24", "10.10.10.0", "10.10.10.255", "", "10.10.10.1-10.10.10.254 gw 10.10.10.1 size 253"},
		{"a /31 has neither network nor broadcast", "10.0.0.0/31", "", "", "", "10.0.0.0-10.0.0.1 gw 10.0.0.0 size 1"},
		{"a /32 has room for the gateway only", "10.0.0.7/32", "", "", "", "10.0.0.7-10.0.0.7 gw 10.0.0.7 size 0"},
		{"an IPv6 /120", "fd00::100/120", "", "", "", "fd00::101-fd00::1ff gw fd00::101 size 254"},
		{"an IPv6 /64 is as good as endless", "fd00::/64", "", "", "", "fd00::1-fd00::ffff:ffff:ffff:ffff gw fd00::1 size 2305843009213693951"},
		{"host bits", "10.10.10.1/24", "", "", "", "did you mean 10.10.10.0/24?"},
		{"a gateway elsewhere", "10.10.10.0/24", "", "", "10.10.11.1", "gateway: 10.10.11.1 is not in 10.10.10.0/24"},
		{"turned round", "10.10.10.0/24", "10.10.10.9", "10.10.10.8", "", "rangeEnd: 10.10.10.8 is before rangeStart 10.10.10.9"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r, err := NewRange(netip.MustParsePrefix(row.subnet), addr(row.first), addr(row.last), addr(row.gateway))
			got := ""
			if err != nil {
				if got = err.Error(); strings.Contains(got, row.want) {
					return
				}
			} else {
				got = r.First.String() + "-" + r.Last.String() + " gw " + r.Gateway.String() + " size " + itoa(Set{r}.Size())
			}
			if got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestAfterWalksEachAddressOnceAndTheLastOneLast(t *testing.T) {
	one, err := NewRange(netip.MustParsePrefix("10.0.0.0/29"), netip.Addr{}, netip.Addr{}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := NewRange(netip.MustParsePrefix("10.0.1.0/29"), addr("10.0.1.2"), addr("10.0.1.4"), addr("10.0.1.3"))
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		after string
		want  string
	}{
		{"", "0.2 0.3 0.4 0.5 0.6 1.2 1.4"},
		{"10.0.0.3", "0.4 0.5 0.6 1.2 1.4 0.2 0.3"},
		{"10.0.0.6", "1.2 1.4 0.2 0.3 0.4 0.5 0.6"},
		{"10.0.1.4", "0.2 0.3 0.4 0.5 0.6 1.2 1.4"},
		{"10.0.1.2", "1.4 0.2 0.3 0.4 0.5 0.6 1.2"},
		{"192.168.0.1", "0.2 0.3 0.4 0.5 0.6 1.2 1.4"},
	}
	for _, row := range rows {
		var got []string
		for a := range (Set{one, two}).After(addr(row.after)) {
			got = append(got, strings.TrimPrefix(a.String(), "10.0."))
		}
		if diff := cmp.Diff(row.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", row.after, diff)
		}
	}
	for range (Set{}).After(netip.Addr{}) {
		t.Error("an empty set gives an address")
	}
}

func TestFind(t *testing.T) {
	r, err := NewRange(netip.MustParsePrefix("10.0.0.0/24"), netip.Addr{}, addr("10.0.0.9"), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	for a, want := range map[string]bool{"10.0.0.0": false, "10.0.0.1": false, "10.0.0.2": true, "10.0.0.9": true, "10.0.0.10": false} {
		if _, got := (Set{r}).Find(addr(a)); got != want {
			t.Errorf("%s may be given: %t, want %t", a, got, want)
		}
	}
	if _, ok := (Set{r}).Subnet(addr("10.0.0.200")); !ok {
		t.Error("10.0.0.200 is in no subnet")
	}
}
