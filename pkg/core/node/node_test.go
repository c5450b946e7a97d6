// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	n := Node{
		Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")},
		ClusterPrefixes: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16")},
		Addresses:       []netip.Addr{netip.MustParseAddr("10.20.30.62")}, Uplink: "ens18", MTU: 1500,
	}
	got, err := Parse(n.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Encode()) != string(n.Encode()) {
		t.Errorf("(-want +got):\n%s", cmp.Diff(string(n.Encode()), string(got.Encode())))
	}
}

func TestParseReportsEverything(t *testing.T) {
	_, err := Parse([]byte(`{"podSubnets":["10.10.10.1/24","10.10.10.128/25"]}`))
	want := "node: name is missing\n" +
		"podSubnets[0]: 10.10.10.1/24 has host bits set: did you mean 10.10.10.0/24?\n" +
		"podSubnets[1]: 10.10.10.128/25 overlaps podSubnets[0] 10.10.10.1/24"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestClusterPrefix(t *testing.T) {
	for pod, want := range map[string]string{
		"10.10.10.0/24": "10.10.0.0/16", "10.0.0.0/8": "10.0.0.0/8", "fd00:10:20:30::/64": "fd00:10:20::/48",
	} {
		if got := ClusterPrefix(netip.MustParsePrefix(pod)).String(); got != want {
			t.Errorf("ClusterPrefix(%s) = %s, want %s", pod, got, want)
		}
	}
}
