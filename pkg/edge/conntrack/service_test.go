// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestForgetServices(t *testing.T) {
	ns := nstest.New(t)
	for i, f := range []string{
		"udp --orig-src 10.10.10.2 --orig-dst 10.100.0.10 --reply-src 10.10.20.4 --reply-dst 10.10.10.2",
		"udp --orig-src 10.10.10.2 --orig-dst 10.100.0.11 --reply-src 10.10.20.4 --reply-dst 10.10.10.2",
		"udp --orig-src fd00:10::2 --orig-dst fd00:100::10 --reply-src fd00:10::4 --reply-dst fd00:10::2",
		"tcp --state ESTABLISHED --orig-src 10.10.10.2 --orig-dst 10.100.0.10 --reply-src 10.10.20.4 --reply-dst 10.10.10.2",
	} {
		nstest.Sh(t, ns, fmt.Sprintf("conntrack -I -t 60 -p %s --sport %d --dport 53 --reply-port-src 5353 --reply-port-dst %[2]d", f, 1000+i))
	}
	gone := map[netip.Addr]bool{netip.MustParseAddr("10.100.0.10"): true, netip.MustParseAddr("fd00:100::10"): true}
	nstest.Do(t, ns, func() error {
		return ForgetServices(service.UDP, nil, func(f Flow) bool {
			if f.To.Port() != 53 || f.By.Port() != 5353 {
				t.Errorf("asked of %v", f)
			}
			return gone[f.To.Addr()]
		})
	})
	left := nstest.Sh(t, ns, "conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
	if strings.Count(left, "\n") != 2 || !strings.Contains(left, "dst=10.100.0.11") || !strings.Contains(left, "tcp") {
		t.Errorf("left:\n%s", left)
	}
}

func TestForgetServicesOfTCPThatNobodyHasAnswered(t *testing.T) {
	past := netip.MustParseAddrPort("10.100.0.10:80")
	for name, few := range map[string][]Match{"in a walk": nil, "one by one": {{Protocol: service.TCP, To: past, By: past}}} {
		ns := nstest.New(t)
		const flow = "conntrack -I -t 60 -p tcp --orig-src 10.10.10.2 --reply-dst 10.10.10.2 --dport 80 --reply-port-src 80 "
		nstest.Sh(t, ns, flow+`--state SYN_SENT --orig-dst 10.100.0.10 --reply-src 10.100.0.10 --sport 1000 --reply-port-dst 1000
`+flow+`--state SYN_SENT --orig-dst 10.100.0.11 --reply-src 10.100.0.11 --sport 1001 --reply-port-dst 1001
`+flow+`--state SYN_SENT --orig-dst 10.100.0.10 --reply-src 10.10.20.4 --sport 1002 --reply-port-dst 1002
`+flow+`--state ESTABLISHED --orig-dst 10.100.0.10 --reply-src 10.100.0.10 --sport 1003 --reply-port-dst 1003 -u SEEN_REPLY`)
		nstest.Do(t, ns, func() error {
			return ForgetServices(service.TCP, few, func(f Flow) bool { return f.To == past && f.By == past })
		})
		left := nstest.Sh(t, ns, "conntrack -L 2>/dev/null")
		if strings.Count(left, "\n") != 3 || strings.Contains(left, "sport=1000") {
			t.Errorf("%s: left:\n%s", name, left)
		}
	}
}
