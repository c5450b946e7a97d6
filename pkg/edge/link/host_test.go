// SPDX-License-Identifier: Apache-2.0

package link

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestHostFacts(t *testing.T) {
	node, mls := nstest.New(t), nstest.New(t)
	nstest.Veth(t, node, "ens18", "10.20.30.62/24", mls, "swp1", "10.20.30.1/24")
	nstest.Do(t, node, func() error {
		if _, ok, err := DefaultUplink(unix.AF_INET); ok || err != nil {
			t.Errorf("a node without a default route has an uplink: %v %v", ok, err)
		}
		return nil
	})
	nstest.Sh(t, node, "ip link set ens18 mtu 9000; ip route add default via 10.20.30.1 metric 200; ip route add default via 10.20.30.9 metric 300")
	nstest.Do(t, node, func() error {
		u, ok, err := DefaultUplink(unix.AF_INET)
		if err != nil || !ok || u != (Uplink{Name: "ens18", MTU: 9000}) {
			t.Errorf("uplink %+v %v %v", u, ok, err)
		}
		src, via, err := SourceFor(netip.MustParseAddr("172.16.0.100"))
		if err != nil || src != netip.MustParseAddr("10.20.30.62") || via != "ens18" {
			t.Errorf("source %s via %s, %v", src, via, err)
		}
		all, err := HostPrefixes()
		if err != nil {
			return err
		}
		found := false
		for _, p := range all {
			if p.Link == "lo" {
				t.Errorf("loopback listed: %+v", p)
			}
			if p == (HostPrefix{Link: "ens18", Addr: netip.MustParseAddr("10.20.30.62"), Prefix: netip.MustParsePrefix("10.20.30.0/24")}) {
				found = true
			}
		}
		if !found {
			t.Errorf("10.20.30.62 on ens18 is not among %+v", all)
		}
		return nil
	})
}
