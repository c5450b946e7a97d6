// SPDX-License-Identifier: Apache-2.0

package tuning

import (
	"net/netip"
	"testing"
)

func TestWeights(t *testing.T) {
	const key = Prefix + "weights"
	for _, tt := range []struct {
		name, text, endpoint string
		want                 int
	}{
		{"nothing said weighs one", "", "10.10.10.2", 1},
		{"an address", "10.10.10.2=5", "10.10.10.2", 5},
		{"another address", "10.10.10.2=5", "10.10.10.3", 1},
		{"the pods of a node", "10.10.10.0/24 = 3", "10.10.10.9", 3},
		{"the longest prefix counts, whatever the order", "10.10.10.9=7, 10.10.10.0/24=3, 10.10.0.0/16=0", "10.10.10.9", 7},
		{"nothing at all", "10.10.10.0/24=3, 10.10.10.9=0", "10.10.10.9", 0},
		{"IPv6", "2001:db8::/64=2", "2001:db8::1", 2},
	} {
		s, err := Parse(map[string]string{key: tt.text})
		if tt.text == "" {
			s, err = Parse(nil)
		}
		if got := s.Weights.Of(netip.MustParseAddr(tt.endpoint)); err != nil || got != tt.want {
			t.Errorf("%s: %d (%v), want %d", tt.name, got, err, tt.want)
		}
	}
	_, err := Parse(map[string]string{key: "10.10.10.1/24=1, x=2, 10.0.0.1, 10.0.0.2=101, 10.0.0.3=1, 10.0.0.3=2"})
	want := `l3edge.dev/weights: 10.10.10.1/24 has host bits set: did you mean 10.10.10.0/24?
"x" is not a prefix
"10.0.0.1" is not address=weight
"101" is not a number from 0 to 100
10.0.0.3/32 is there twice`
	if err == nil || err.Error() != want {
		t.Errorf("all mistakes at once:\n%v\nwant\n%s", err, want)
	}
}
