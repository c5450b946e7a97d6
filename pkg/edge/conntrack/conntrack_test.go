// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestForget(t *testing.T) {
	ns := nstest.New(t)
	add := func(proto, port, reply string) {
		flags := ""
		if proto == "tcp" {
			flags = "--state ESTABLISHED"
		}
		nstest.Sh(t, ns, "conntrack -I -p "+proto+" -t 60 --orig-src 10.20.30.1 --orig-dst 10.20.30.62 --sport 999 --dport "+port+
			" --reply-src "+reply+" --reply-dst 10.20.30.1 --reply-port-src 53 --reply-port-dst 999 "+flags)
	}
	flows := func() int { return strings.Count(nstest.Sh(t, ns, "conntrack -L 2>/dev/null"), "dport=") / 2 }
	add("udp", "5353", "10.10.10.2")
	add("udp", "5354", "10.10.10.3")
	add("tcp", "5353", "10.10.10.2")
	nstest.Do(t, ns, func() error { return ForgetPort(true, 5353) })
	if n := flows(); n != 2 {
		t.Errorf("after forgetting one port %d flows are left, want the other port's and TCP's", n)
	}
	nstest.Do(t, ns, func() error { return ForgetPod(netip.MustParseAddr("10.10.10.3")) })
	if n := flows(); n != 1 {
		t.Errorf("after forgetting the pod %d flows are left, want TCP's", n)
	}
	nstest.Do(t, ns, func() error { return ForgetPod(netip.MustParseAddr("10.10.10.3")) })
}
