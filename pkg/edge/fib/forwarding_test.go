// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"errors"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestEnableForwarding(t *testing.T) {
	n, _, _, _ := node(t)
	nstest.Sh(t, n, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv6.conf.ens18.accept_ra=1 net.ipv6.conf.lo.accept_ra=0")
	for name, f := range map[string]struct {
		is     func() (bool, error)
		enable func() (bool, error)
	}{"IPv4": {Forwarding, EnableForwarding}, "IPv6": {Forwarding6, EnableForwarding6}} {
		nstest.Do(t, n, func() error {
			before, err := f.is()
			changed, err2 := f.enable()
			after, err3 := f.is()
			again, err4 := f.enable()
			if before || !changed || !after || again {
				t.Errorf("%s: %v, changed %v, %v, changed again %v", name, before, changed, after, again)
			}
			return errors.Join(err, err2, err3, err4)
		})
	}
	got := nstest.Sh(t, n, "sysctl -n net.ipv6.conf.ens18.accept_ra net.ipv6.conf.lo.accept_ra")
	if strings.Fields(got)[0] != "2" || strings.Fields(got)[1] != "0" {
		t.Errorf("accept_ra of a link that heeded advertisements, and of one that did not: %q", got)
	}
}
