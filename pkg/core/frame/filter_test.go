// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"net/netip"
	"testing"
)

func TestFilter(t *testing.T) {
	at := netip.MustParseAddrPort
	web := Service{at("10.100.87.105:80"), []netip.AddrPort{at("10.10.30.2:8080")}}
	base := Filter{Pod: []netip.Addr{netip.MustParseAddr("10.10.10.2")}, Host: []netip.Addr{netip.MustParseAddr("10.20.30.62")}, Services: []Service{web}}
	service, port80, port22 := base, base, base
	service.Only, port80.Port, port22.Port = []Service{web}, 80, 22
	for _, row := range []struct {
		what     string
		f        Filter
		src, dst string
		want     bool
	}{
		{"the pod's own", base, "10.10.10.2:1000", "8.8.8.8:53", true},
		{"the proxy's leg", base, "10.20.30.62:2000", "10.10.30.2:8080", true},
		{"its answer", base, "10.10.30.2:8080", "10.20.30.62:2000", true},
		{"the node's BGP", base, "10.20.30.62:2000", "10.20.30.1:179", false},
		{"another pod's", base, "10.10.10.3:1000", "10.10.30.2:8080", false},
		{"the service's first leg", service, "10.10.10.2:1000", "10.100.87.105:80", true},
		{"the service's second leg", service, "10.20.30.62:2000", "10.10.30.2:8080", true},
		{"the pod's own, to something else", service, "10.10.10.2:1000", "8.8.8.8:53", false},
		{"the port, first leg", port80, "10.10.10.2:1000", "10.100.87.105:80", true},
		{"the port, second leg", port80, "10.20.30.62:2000", "10.10.30.2:8080", true},
		{"another port", port22, "10.10.10.2:1000", "10.100.87.105:80", false},
	} {
		if got := row.f.Keep(Packet{Src: at(row.src), Dst: at(row.dst)}); got != row.want {
			t.Errorf("%s: %t", row.what, got)
		}
	}
}
