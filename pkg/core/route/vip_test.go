// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVIPs(t *testing.T) {
	portals := Portals{
		Nets: []netip.Prefix{pfx("10.100.0.0/16")},
		VIPs: []VIP{
			{addr("10.100.87.105"), 1}, {addr("203.0.113.7"), 0}, {addr("203.0.113.7"), 3}, {addr("203.0.113.7"), 2}, {addr("203.0.113.8"), 0},
		},
	}
	both := VIPWish{Net: true, Hosts: true}
	tests := []struct {
		name   string
		wish   VIPWish
		change func(*Portals)
		drain  Drain
		want   string
	}{
		{name: "nothing unless wished", want: ""},
		{name: "the portal net is one aggregate", wish: VIPWish{Net: true}, want: "10.100.0.0/16 portal net: \n"},
		{name: "an outside address goes out when one of its ports has an endpoint", wish: VIPWish{Hosts: true}, want: "203.0.113.7/32 service address: *3\n203.0.113.8/32 service address: no endpoint is ready\n"},
		{
			name: "nothing is announced on a dead portald's word", wish: both, change: func(p *Portals) { p.Problem = "portald does not answer" },
			want: "10.100.0.0/16 portal net: portald does not answer\n203.0.113.7/32 service address: portald does not answer*3\n203.0.113.8/32 service address: portald does not answer\n",
		},
		{
			name: "a node that leaves says so first", wish: both, drain: Leaving,
			want: "10.100.0.0/16 portal net:  (leaving)\n203.0.113.7/32 service address: *3 (leaving)\n203.0.113.8/32 service address: no endpoint is ready (leaving)\n",
		},
		{
			name: "and then withdraws", wish: both, drain: Departed,
			want: "10.100.0.0/16 portal net: drained\n203.0.113.7/32 service address: drained*3\n203.0.113.8/32 service address: drained\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := portals
			if tt.change != nil {
				tt.change(&p)
			}
			got := ""
			for _, i := range VIPs(tt.wish, p, tt.drain) {
				got += fmt.Sprintf("%s %s: %s", i.Prefix, i.Why, i.Lacks)
				if i.Share > 0 {
					got += fmt.Sprintf("*%d", i.Share)
				}
				if i.Leaving {
					got += " (leaving)"
				}
				if i.Sink {
					got += " (cuts off clients on the node)"
				}
				got += "\n"
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("intents (-want +got):\n%s", diff)
			}
		})
	}
}
