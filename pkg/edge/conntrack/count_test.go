// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"net/netip"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestCount(t *testing.T) {
	n := nstest.New(t)
	nstest.Sh(t, n, `
		conntrack -I -p tcp -s 172.16.0.100 -d 203.0.113.7 --sport 40000 --dport 80 -r 10.10.30.2 -q 172.16.0.100 --reply-port-src 8080 --reply-port-dst 40000 --state ESTABLISHED -t 300
		conntrack -I -p tcp -s 172.16.0.100 -d 203.0.113.7 --sport 40001 --dport 80 -r 10.10.30.2 -q 172.16.0.100 --reply-port-src 8080 --reply-port-dst 40001 --state TIME_WAIT -t 300
		conntrack -I -p udp -s 172.16.0.100 -d 203.0.113.7 --sport 40002 --dport 53 -t 300
		conntrack -I -p tcp -s 10.10.10.2 -d 203.0.113.7 --sport 40003 --dport 80 --state ESTABLISHED -t 300
		conntrack -I -p tcp -s 2001:db8::100 -d 2001:db8:ffff::7 --sport 40004 --dport 80 --state ESTABLISHED -t 300
		conntrack -I -p tcp -s 172.16.0.100 -d 172.16.0.1 --sport 40005 --dport 22 --state ESTABLISHED -t 300`)
	vips := []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("2001:db8:ffff::/64")}
	pods := netip.MustParsePrefix("10.10.10.0/24")
	var got int
	nstest.Do(t, n, func() (err error) {
		got, err = Count(func(from, to netip.Addr) bool {
			return !pods.Contains(from) && (vips[0].Contains(to) || vips[1].Contains(to))
		})
		return err
	})
	if got != 3 {
		t.Errorf("%d flows, want the open TCP connection, UDP and IPv6", got)
	}
}
