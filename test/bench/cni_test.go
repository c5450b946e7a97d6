// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
)

func TestLostPodsAreCounted(t *testing.T) {
	with := func(address string) *pod { return &pod{result: []byte(`{"ips":[{"address":"` + address + `"}]}`)} }
	for name, tt := range map[string]struct {
		pods []*pod
		errs []error
		want int
	}{
		"each its own":          {[]*pod{with("10.10.10.2/24"), with("10.10.10.3/24")}, []error{nil, nil}, 2},
		"one address for two":   {[]*pod{with("10.10.10.2/24"), with("10.10.10.2/24")}, []error{nil, nil}, 1},
		"one ADD failed":        {[]*pod{with("10.10.10.2/24"), {}}, []error{nil, errors.New("no")}, 1},
		"one without a result":  {[]*pod{with("10.10.10.2/24"), {}}, []error{nil, nil}, 1},
		"one without addresses": {[]*pod{with("10.10.10.2/24"), {result: []byte(`{"ips":[]}`)}}, []error{nil, nil}, 1},
	} {
		if got := distinct(tt.pods, tt.errs); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// TestPortsPresentAreAsMany: both sides stand before the same number of ports.
func TestPortsPresentAreAsMany(t *testing.T) {
	for name, tt := range map[string]struct{ text, each string }{
		"ours":     {ourPorts(300), " anyip "},
		"nftables": {nftPorts(300), " dnat to "},
		"iptables": {iptablesPorts(300), " -A CNI-HOSTPORT-DNAT "},
	} {
		if n := strings.Count(strings.ReplaceAll(tt.text, "\n", " "), tt.each); n != 300 {
			t.Errorf("%s: %d ports of 300", name, n)
		}
	}
	if iptablesPorts(0)+nftPorts(0)+ourPorts(0) != "" {
		t.Error("none are some")
	}
}
