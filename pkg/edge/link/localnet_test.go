// SPDX-License-Identifier: Apache-2.0

package link

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestEnsureReachable(t *testing.T) {
	h, peer := nstest.New(t), nstest.New(t)
	nstest.Veth(t, h, "ens18", "10.20.30.62/24", peer, "eth0", "10.20.30.1/24")
	nets := netip.MustParsePrefix("10.100.0.0/16")
	ensure := func(want bool) {
		t.Helper()
		nstest.Do(t, h, func() error {
			added, err := EnsureReachable(nets, netip.MustParseAddr("10.20.30.62"), mark.RoutePortald)
			if added != want {
				t.Errorf("added %v, want %v", added, want)
			}
			return err
		})
	}
	ensure(true)
	out := nstest.Run(t, h, "ip", "route", "show", "10.100.0.0/16")
	if !strings.HasPrefix(out, "10.100.0.0/16 dev ens18 proto 104 scope link src 10.20.30.62") {
		t.Errorf("route: %s", out)
	}
	ensure(false)
	nstest.Do(t, h, func() error { return RemoveRoutes(mark.RoutePortald) })
	nstest.Sh(t, h, "ip route add default via 10.20.30.1")
	ensure(false)
	if out := nstest.Run(t, h, "ip", "route"); strings.Contains(out, "10.100") || !strings.Contains(out, "default") {
		t.Errorf("with a default route, and after removal: %s", out)
	}
	nstest.Do(t, h, func() error {
		nstest.Sh(t, h, "ip route del default")
		_, err := EnsureReachable(nets, netip.MustParseAddr("192.0.2.1"), mark.RoutePortald)
		if err == nil || err.Error() != "route to 10.100.0.0/16: no link has the address 192.0.2.1" {
			t.Errorf("an address that the host does not have: %v", err)
		}
		return nil
	})
}
