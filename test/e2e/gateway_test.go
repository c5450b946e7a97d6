// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// TestAGatewayOfThePortalNet leads clients outside in, and serves those on itself as before. What is no service's address is
// refused by it at once: the packet does not go round between node and switch.
func TestAGatewayOfThePortalNet(t *testing.T) {
	const nobody = "10.100.99.99:80"
	for _, mode := range []string{"nftables", "userspace"} {
		t.Run(mode, func(t *testing.T) {
			l := routed(t, lab.Embedded)
			pods := portal(t, l, mode)
			must(t, l.MLS.Accept("10.100.0.0/16"))
			node, outside := l.Hosts["kubminion1"], l.Hosts["outside"].Place
			must(t, node.Routed.Stop())
			var err error
			node.Routed, err = node.Start("routed", "routed", "--peer=mls", "--announce-portal-net")
			must(t, err)
			labtest.Within(t, 15*time.Second, "a way in", func() error { return outside.Reaches(vip) })
			must(t, node.Reaches(vip))
			must(t, pods[0].Reaches(vip))
			for _, from := range []*place.Place{outside, node.Place} {
				began := time.Now()
				err := from.Reaches(nobody)
				if took := time.Since(began); err == nil || took > 200*time.Millisecond || strings.Contains(err.Error(), "deadline") {
					t.Errorf("%s to %s: %v after %s", from.Name, nobody, err, took)
				}
			}
		})
	}
}
