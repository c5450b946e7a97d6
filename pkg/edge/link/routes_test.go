// SPDX-License-Identifier: Apache-2.0

package link

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestRoutes(t *testing.T) {
	h, peer := nstest.New(t), nstest.New(t)
	nstest.Veth(t, h, "ens18", "10.20.30.62/24", peer, "eth0", "10.20.30.1/24")
	nstest.Sh(t, h, `ip route add default via 10.20.30.1
ip route add unreachable 10.8.0.0/16 metric 7
ip nexthop add id 9 via 10.20.30.5 dev ens18 && ip route add 10.9.0.0/16 nhid 9 proto 103
ip route add 10.7.0.0/16 nexthop via 10.20.30.2 nexthop via 10.20.30.3`)
	nstest.Do(t, h, func() error {
		gw := []netip.Addr{netip.MustParseAddr("10.20.30.2"), netip.MustParseAddr("10.20.30.3")}
		for range 2 { // the second time it is there
			if err := PutBack(netip.MustParsePrefix("10.6.0.0/16"), gw, 103, 103); err != nil {
				return err
			}
		}
		return PutBack(netip.MustParsePrefix("10.5.0.0/16"), gw[:1], 103, 103)
	})
	if out := nstest.Run(t, h, "ip", "route", "show", "proto", "103"); !strings.Contains(out, "10.5.0.0/16 via 10.20.30.2 dev ens18 metric 103") {
		t.Errorf("put back: %s", out)
	}
	var got []string
	nstest.Do(t, h, func() error {
		routes, err := Routes()
		for _, r := range routes {
			if s := r.String(); r.Dst.Addr().Is4() {
				got = append(got, s)
			}
		}
		return err
	})
	want := `default via 10.20.30.1 dev ens18
10.5.0.0/16 via 10.20.30.2 dev ens18
10.6.0.0/16 via 10.20.30.2 dev ens18 via 10.20.30.3 dev ens18
10.7.0.0/16 via 10.20.30.2 dev ens18 via 10.20.30.3 dev ens18
unreachable 10.8.0.0/16
10.9.0.0/16 via 10.20.30.5 dev ens18
10.20.30.0/24 dev ens18`
	if d := cmp.Diff(want, strings.Join(got, "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
