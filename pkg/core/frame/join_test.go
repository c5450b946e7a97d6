// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"net/netip"
	"testing"
)

func TestJoinerGivesBothLegsOneNumber(t *testing.T) {
	at := netip.MustParseAddrPort
	j := Joiner{Services: []Service{{at("10.100.87.105:80"), []netip.AddrPort{at("10.10.10.2:8080"), at("10.10.30.2:8080")}}}}
	for _, row := range []struct {
		what, src, dst string
		first          bool
		want           int
	}{
		{"a pod asks the service", "10.10.10.2:1000", "10.100.87.105:80", true, 1},
		{"the proxy asks an endpoint", "10.20.30.62:2000", "10.10.30.2:8080", true, 1},
		{"the endpoint answers", "10.10.30.2:8080", "10.20.30.62:2000", false, 1},
		{"the service answers", "10.100.87.105:80", "10.10.10.2:1000", false, 1},
		{"another asks the endpoint itself", "10.20.30.62:2001", "10.10.30.2:8080", true, 2},
		{"a pod asks, and a rule keeps its source", "10.10.10.2:1001", "10.100.87.105:80", true, 3},
		{"a second pod asks", "10.10.10.3:1001", "10.100.87.105:80", true, 4},
		{"the second's other leg comes first", "10.10.10.3:1001", "10.10.30.2:8080", true, 4},
		{"then the first's", "10.10.10.2:1001", "10.10.30.2:8080", true, 3},
		{"a ping", "10.10.10.2:0", "10.10.10.1:0", false, 0},
	} {
		if got := j.Number(Packet{Src: at(row.src), Dst: at(row.dst), First: row.first, Protocol: TCP}); got != row.want {
			t.Errorf("%s: %d, want %d", row.what, got, row.want)
		}
	}
}
