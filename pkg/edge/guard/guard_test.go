// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { nstest.Main(m) }

func bound(mac byte, addrs ...string) attach.Guard {
	g := attach.Guard{MAC: attach.MAC{2, 0, 0, 0, 0, mac}}
	for _, a := range addrs {
		g.Addrs = append(g.Addrs, netip.MustParseAddr(a))
	}
	return g
}

// TestTheTableReadsAsItSays: what we sent is what the kernel has, and nft can list it.
func TestTheTableReadsAsItSays(t *testing.T) {
	node := nstest.New(t)
	var c *guard.Conn
	nstest.Do(t, node, func() (err error) { c, err = guard.Dial(); return err })
	defer c.Close()
	set := func(port string, g attach.Guard) {
		t.Helper()
		if err := c.Set(port, g); err != nil {
			t.Fatal(err)
		}
	}
	set("veth0", attach.Guard{}) // no table yet: nothing to do
	one, two := bound(1, "10.0.0.2", "fd00::2"), bound(2)
	set("veth1", one)
	set("veth1", one)
	if err := c.Add("veth2", two); err != nil {
		t.Fatal(err)
	}
	got := nstest.Run(t, node, "nft", "list", "ruleset")
	if *update {
		if err := os.WriteFile("testdata/table.nft", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/table.nft")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	for port, want := range map[string]attach.Guard{"veth1": one, "veth2": two, "veth3": {}} {
		if g, err := c.Get(port); err != nil || !g.Equal(want) {
			t.Errorf("%s: %+v, %v, want %+v", port, g, err, want)
		}
	}
	three := bound(1, "10.0.0.9")
	set("veth1", three)
	if g, err := c.Get("veth1"); err != nil || !g.Equal(three) {
		t.Errorf("changed: %+v, %v", g, err)
	}
	prune := func() (map[string]bool, error) {
		there := map[string]bool{"veth2": true}
		set("veth4", one) // another process makes a port meanwhile, and binds it
		return there, nil
	}
	if err := c.Prune(prune); err != nil {
		t.Error(err)
	}
	if g, err := c.Get("veth4"); err != nil || !g.Equal(one) {
		t.Errorf("a port that was being made lost its binding: %+v, %v", g, err)
	}
	if g, err := c.Get("veth1"); err != nil || !g.Equal(attach.Guard{}) {
		t.Errorf("pruned: %+v, %v", g, err)
	}
	set("veth2", attach.Guard{})
	if g, err := c.Get("veth2"); err != nil || !g.Equal(attach.Guard{}) {
		t.Errorf("removed: %+v, %v", g, err)
	}
}

// TestWhatOthersChangedIsSeenAndMended: a binding without effect is told, and the next one mends the rules, for all.
func TestWhatOthersChangedIsSeenAndMended(t *testing.T) {
	for name, change := range map[string]struct {
		nft  string
		lost bool // what bound veth1: only binding it again helps
	}{
		"an empty chain":                        {"flush chain bridge l3edge_pods prerouting", false},
		"a rule less":                           {"flush chain bridge l3edge_pods prerouting; add rule bridge l3edge_pods prerouting drop", false},
		"a rule that lets everything pass":      {"insert rule bridge l3edge_pods prerouting accept", false},
		"as many rules, the first another":      {"replace rule bridge l3edge_pods prerouting handle HANDLE accept", false},
		"as many rules, the first turned round": {"replace rule bridge l3edge_pods prerouting handle HANDLE iifname @ports accept", false},
		"a table that sleeps":                   {"add table bridge l3edge_pods { flags dormant; }", false},
		"a chain that lets everything pass":     {"delete chain bridge l3edge_pods prerouting; add chain bridge l3edge_pods prerouting", false},
		"a chain at another hook":               {"delete chain bridge l3edge_pods prerouting; add chain bridge l3edge_pods prerouting { type filter hook output priority -300; }", false},
		"a chain behind others":                 {"delete chain bridge l3edge_pods prerouting; add chain bridge l3edge_pods prerouting { type filter hook prerouting priority 100; }", false},
		"a chain that drops what it should not": {"chain bridge l3edge_pods prerouting { policy drop; }", false},
		"a port that counts as unbound":         {`delete element bridge l3edge_pods ports { "veth1" }`, true},
		"a port bound to its MAC only":          {`delete element bridge l3edge_pods strict { "veth1" }`, true},
	} {
		t.Run(name, func(t *testing.T) {
			node := nstest.New(t)
			var c *guard.Conn
			nstest.Do(t, node, func() (err error) { c, err = guard.Dial(); return err })
			defer c.Close()
			one := bound(1, "10.0.0.2", "fd00::2")
			if err := c.Set("veth1", one); err != nil {
				t.Fatal(err)
			}
			list := nstest.Run(t, node, "nft", "-a", "list", "chain", "bridge", "l3edge_pods", "prerouting")
			_, handle, _ := strings.Cut(list, "accept # handle ") // of the first rule
			handle, _, _ = strings.Cut(handle, "\n")
			before := nstest.Run(t, node, "nft", "list", "ruleset")
			nstest.Run(t, node, "nft", strings.ReplaceAll(change.nft, "HANDLE", handle))
			if g, err := c.Get("veth1"); !errors.Is(err, guard.ErrChanged) {
				t.Errorf("not seen: %+v, %v", g, err)
			}
			if err := c.Add("veth2", bound(2)); err != nil {
				t.Fatal(err)
			}
			if g, err := c.Get("veth2"); err != nil || !g.Equal(bound(2)) {
				t.Errorf("a new port: %+v, %v", g, err)
			}
			if change.lost {
				if err := c.Set("veth1", one); err != nil {
					t.Fatal(err)
				}
			}
			if g, err := c.Get("veth1"); err != nil || !g.Equal(one) {
				t.Errorf("the old port: %+v, %v", g, err)
			}
			if err := c.Set("veth2", attach.Guard{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, nstest.Run(t, node, "nft", "list", "ruleset")); diff != "" {
				t.Errorf("mended (-want +got):\n%s", diff)
			}
		})
	}
}
