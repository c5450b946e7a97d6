// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// Whatever others do to our table, or an older version has left in it: the next look makes it what it should be.
func TestNothingOfOthersStaysInOurTable(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	apply(t, d, full())
	list := func() map[string]int { // where an element stands in a listing is chance
		m := map[string]int{}
		for _, l := range normal(nstest.Run(t, h, "nft", "list", "ruleset")) {
			m[l]++
		}
		return m
	}
	want := list()
	for _, row := range []struct{ name, do string }{
		{"the table is put to sleep", "add table ip l3edge { flags dormant; }"},
		{"a chain drops by policy", "chain ip l3edge filter-forward { policy drop; }"},
		{"a chain for translation too", "chain ip l3edge prerouting { policy drop; }"},
		{"a base chain more", "add chain ip l3edge x { type filter hook forward priority 0; policy drop; }"},
		{"one with a rule", "add chain ip l3edge x { type filter hook input priority 0; }; add rule ip l3edge x tcp dport 22 drop"},
		{"chains that lead to one another", "add chain ip l3edge x; add chain ip l3edge y; add rule ip l3edge x jump y; add rule ip l3edge filter-input jump x"},
		{"a set", "add set ip l3edge mine { type ipv4_addr; }; add rule ip l3edge filter-input ip saddr @mine drop"},
		{"a map that leads to a chain", "add chain ip l3edge x; add map ip l3edge mine { type ipv4_addr : verdict; elements = { 10.10.10.1 : goto x } }"},
		{"an element that leads to a chain", "add chain ip l3edge x; add element ip l3edge svc { 10.100.9.9 . tcp . 80 : goto x }"},
		{"the table is put to sleep, and a chain of it is gone", "flush chain ip l3edge filter-output; delete chain ip l3edge filter-output\nadd table ip l3edge { flags dormant; }"},
		{"the other family", "add chain ip6 l3edge x { type filter hook forward priority 0; policy drop; }"},
	} {
		for do := range strings.SplitSeq(row.do, "\n") {
			nstest.Run(t, h, "nft", do)
		}
		if cmp.Equal(want, list()) {
			t.Fatalf("%s: nothing has changed", row.name)
		}
		d.Forget()
		apply(t, d, full())
		if d := cmp.Diff(want, list()); d != "" {
			t.Errorf("%s (-before +after):\n%s", row.name, d)
			nstest.Run(t, h, "nft", "flush ruleset")
			d := plane(t, h)
			apply(t, d, full())
		}
	}
	if err := d.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	apply(t, d, portal.Table{})
}

// A rule that this version encodes otherwise, though nft would print it alike, is another rule.
func TestMarksTellEncodingsApart(t *testing.T) {
	a := rule{"drop", one(verdict(verdictDrop, ""))}
	b := rule{"drop", one(verdict(verdictAccept, ""))}
	c := rule{"accept", one(verdict(verdictDrop, ""))}
	if string(a.mark()) == string(b.mark()) || string(a.mark()) == string(c.mark()) {
		t.Errorf("marks %q %q %q", a.mark(), b.mark(), c.mark())
	}
}
