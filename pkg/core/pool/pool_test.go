// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
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
		{"a /32 has room for the gateway only", "10.0.0.7/32", "", "", "", "subnet: 10.0.0.7/32 has no address for pods beside the gateway 10.0.0.7"},
		{"a range that is the gateway only", "10.10.10.0/24", "10.10.10.1", "10.10.10.1", "", "subnet: 10.10.10.0/24 has no address for pods"},
		{"the gateway is the broadcast address", "10.10.10.0/24", "", "", "10.10.10.255", "gateway: 10.10.10.255 is not between the first and the last host of 10.10.10.0/24, 10.10.10.1 and 10.10.10.254"},
		{"the gateway is the network's address", "10.10.10.0/24", "", "", "10.10.10.0", "gateway: 10.10.10.0 is not between"},
		{"the node's own addresses", "127.0.0.0/24", "", "", "", "subnet: 127.0.0.0/24 holds addresses that no pod can have, of 127.0.0.0/8"},
		{"addresses of groups", "224.0.0.0/24", "", "", "", "of 224.0.0.0/4"},
		{"everything", "0.0.0.0/0", "", "", "", "of 0.0.0.0/8"},
		{"IPv6 groups", "ff02::/64", "", "", "", "of ff00::/8"},
		{"link-local addresses", "fe80::/64", "", "", "", "of fe80::/10"},
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

func TestChoose(t *testing.T) {
	var sets []Set
	for _, p := range []string{"10.0.0.0/24", "fd00::/64"} {
		r, err := NewRange(netip.MustParsePrefix(p), netip.Addr{}, netip.Addr{}, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, Set{r})
	}
	rows := []struct{ name, asked, had, want, err string }{
		{"nothing is asked for", "", "", "[invalid IP invalid IP]", ""},
		{"one of each set, in any order", "fd00::9 10.0.0.9", "", "[10.0.0.9 fd00::9]", ""},
		{"one of one set", "fd00::9", "", "[invalid IP fd00::9]", ""},
		{"what an interrupted ADD claimed is kept", "", "fd00::7 10.0.0.7", "[10.0.0.7 fd00::7]", ""},
		{"what is asked for goes before that", "10.0.0.9", "fd00::7 10.0.0.7", "[10.0.0.9 fd00::7]", ""},
		{"what it claimed of another range is not kept", "", "10.9.0.7", "[invalid IP invalid IP]", ""},
		{"all that cannot be given is named", "10.0.0.1 10.0.0.9 10.0.0.10 10.9.9.9", "", "", "asked-for address 10.0.0.1 cannot be given: pods of 10.0.0.0/24 have 10.0.0.1 to 10.0.0.254 without the gateway 10.0.0.1\n" +
			"asked-for address 10.0.0.10 is in no range of this network, or a second one of its range\nasked-for address 10.9.9.9 is in no range of this network, or a second one of its range"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			list := func(s string) (out []netip.Addr) {
				for f := range strings.FieldsSeq(s) {
					out = append(out, netip.MustParseAddr(f))
				}
				return out
			}
			got, err := Choose(sets, list(row.asked), list(row.had))
			if row.err != "" {
				if err == nil || err.Error() != row.err {
					t.Errorf("got\n%v\nwant\n%s", err, row.err)
				}
				return
			}
			if err != nil || fmt.Sprint(got) != row.want {
				t.Errorf("%v, %v, want %s", got, err, row.want)
			}
		})
	}
}

// TestTwoRangesOfOneSubnet: as two sets, a pod has an address of each; in one set, each has its own gateway.
func TestTwoRangesOfOneSubnet(t *testing.T) {
	r := func(first, last, gateway string) Range {
		r, err := NewRange(netip.MustParsePrefix("10.0.0.0/24"), addr(first), addr(last), addr(gateway))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	low, high := r("10.0.0.10", "10.0.0.19", "10.0.0.1"), r("10.0.0.20", "10.0.0.29", "10.0.0.2")
	if low.Overlaps(high) || high.Overlaps(low) || !low.Overlaps(r("10.0.0.19", "10.0.0.20", "")) {
		t.Error("overlap")
	}
	if got, _ := (Set{low, high}).Subnet(addr("10.0.0.25")); got != high {
		t.Errorf("10.0.0.25 is of %v, want %v", got, high)
	}
	sets := []Set{{low}, {high}}
	got, err := Choose(sets, []netip.Addr{addr("10.0.0.25")}, []netip.Addr{addr("10.0.0.15"), addr("10.0.0.26")})
	if err != nil || fmt.Sprint(got) != "[10.0.0.15 10.0.0.25]" {
		t.Errorf("%v, %v", got, err)
	}
	for addrs, want := range map[string]string{
		"10.0.0.15 10.0.0.25": "[0 1]", "10.0.0.25 10.0.0.15": "[1 0]",
		"10.0.0.25 10.0.0.99": "[1 0]", "10.0.0.99 10.0.0.15": "[1 0]", // a range has changed since
		"10.0.0.15 10.0.0.16 10.0.0.25": "[0 -1 1]", "10.1.0.1": "[-1]",
	} {
		var list []netip.Addr
		for a := range strings.FieldsSeq(addrs) {
			list = append(list, addr(a))
		}
		if got := fmt.Sprint(Assign(sets, list)); got != want {
			t.Errorf("%s: %s, want %s", addrs, got, want)
		}
	}
}
