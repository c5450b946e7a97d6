// SPDX-License-Identifier: Apache-2.0

package ipt

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// variants runs f once per iptables back end, each in a namespace of its own with its own PATH and lock.
func variants(t *testing.T, f func(t *testing.T, h *netns.Handle)) {
	for _, multi := range []string{"xtables-nft-multi", "xtables-legacy-multi"} {
		t.Run(multi, func(t *testing.T) {
			program, err := exec.LookPath(multi)
			if err != nil {
				t.Fatalf("the test needs Debian's package iptables: %v", err)
			}
			dir := t.TempDir()
			for _, name := range []string{"iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"} {
				if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "lock"))
			f(t, nstest.New(t))
		})
	}
}

func open(t *testing.T, h *netns.Handle, addr netip.Addr) *Family {
	t.Helper()
	var f *Family
	nstest.Do(t, h, func() (err error) { f, err = Open(addr); return err })
	return f
}

func apply(t *testing.T, h *netns.Handle, f *Family, want Rules) (changed string) {
	t.Helper()
	nstest.Do(t, h, func() (err error) { changed, err = f.Apply(t.Context(), want); return err })
	return changed
}

// saved is the nat table without comments and counters of chains.
func saved(t *testing.T, h *netns.Handle, program string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(nstest.Run(t, h, program, "-t", "nat")) {
		if !strings.HasPrefix(line, "#") {
			out.WriteString(strings.Split(line, " [")[0])
			if strings.Contains(line, " [") {
				out.WriteString("\n")
			}
		}
	}
	return out.String()
}

func TestApplyMakesTheArticlesListing(t *testing.T) {
	variants(t, func(t *testing.T, h *netns.Handle) {
		nstest.Run(t, h, "iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1", "-j", "RETURN") // somebody else's
		f := open(t, h, node)
		tab, ports := tables(article...)
		rules := Render(tab, ports, node)
		if apply(t, h, f, rules) == "" {
			t.Error("the first Apply says it changed nothing")
		}
		golden(t, "article.save", saved(t, h, "iptables-save"))
		if again := apply(t, h, f, rules); again != "" {
			t.Errorf("the second Apply changed something:\n%s", again)
		}
	})
}

func TestApplyRepairsAndFollows(t *testing.T) {
	variants(t, func(t *testing.T, h *netns.Handle) {
		f := open(t, h, node)
		tab, ports := tables(append(article, want{"kube-system/dns:dns", "UDP 10.100.0.10:53", 40001}, byNode)...)
		apply(t, h, f, Render(tab, ports, node))
		// Others flush, add and double.
		nstest.Sh(t, h, `iptables -t nat -F OUTPUT
iptables -t nat -A KUBE-PORTALS-HOST -j ACCEPT
iptables -t nat -A PREROUTING -j KUBE-PORTALS-CONTAINER
iptables -t nat -D KUBE-PORTALS-CONTAINER 1`)
		tab, ports = tables(article...)
		rules := Render(tab, ports, node)
		apply(t, h, f, rules)
		if again := apply(t, h, f, rules); again != "" {
			t.Errorf("one Apply did not repair everything, the next does:\n%s", again)
		}
		out := saved(t, h, "iptables-save")
		for _, gone := range []string{"udp", "-j ACCEPT", "NODEPORT"} {
			if strings.Contains(out, gone) {
				t.Errorf("%q is still there:\n%s", gone, out)
			}
		}
		if n := strings.Count(out, "-j KUBE-PORTALS-"); n != 2 {
			t.Errorf("%d jumps, want 2:\n%s", n, out)
		}
	})
}

var byNode = want{"default/by-node", "TCP 10.20.30.62:30080", 40005}

func TestNodePortsComeLast(t *testing.T) {
	variants(t, func(t *testing.T, h *netns.Handle) {
		f := open(t, h, node)
		tab, ports := tables(append(article, byNode)...)
		rules := Render(tab, ports, node)
		apply(t, h, f, rules)
		if again := apply(t, h, f, rules); again != "" {
			t.Errorf("the second Apply changed something:\n%s", again)
		}
		golden(t, "nodeport.save", saved(t, h, "iptables-save"))
	})
}

func TestCleanupLeavesOthersAlone(t *testing.T) {
	variants(t, func(t *testing.T, h *netns.Handle) {
		nstest.Sh(t, h, `iptables -t nat -N OTHER; iptables -t nat -A PREROUTING -j OTHER`)
		before := saved(t, h, "iptables-save")
		f := open(t, h, node)
		nstest.Do(t, h, f.Cleanup) // nothing there: no error
		tab, ports := tables(append(article, byNode)...)
		apply(t, h, f, Render(tab, ports, node))
		nstest.Sh(t, h, `iptables -t nat -A OUTPUT -j KUBE-PORTALS-HOST`)
		nstest.Do(t, h, f.Cleanup)
		if d := cmp.Diff(before, saved(t, h, "iptables-save")); d != "" {
			t.Errorf("after cleanup (-before +after):\n%s", d)
		}
	})
}

func TestIPv6(t *testing.T) {
	variants(t, func(t *testing.T, h *netns.Handle) {
		addr := netip.MustParseAddr("fd00:20::62")
		f := open(t, h, addr)
		tab, ports := tables(want{"default/six", "TCP [fd00:100::5]:80", 40003})
		rules := Render(tab, ports, addr)
		apply(t, h, f, rules)
		if again := apply(t, h, f, rules); again != "" {
			t.Errorf("the second Apply changed something:\n%s", again)
		}
		if out := saved(t, h, "iptables-save"); strings.Contains(out, "KUBE") {
			t.Errorf("IPv4 has been touched:\n%s", out)
		}
	})
}

func TestPlanChangesNothing(t *testing.T) {
	h := nstest.New(t)
	f := open(t, h, node)
	tab, ports := tables(article...)
	nstest.Do(t, h, func() error {
		text, err := f.Plan(Render(tab, ports, node))
		if !strings.Contains(text, "REDIRECT --to-ports 39770") {
			t.Errorf("plan: %s", text)
		}
		return err
	})
	if out := saved(t, h, "iptables-save"); strings.Contains(out, "KUBE") {
		t.Errorf("Plan left something:\n%s", out)
	}
}

func TestABadRuleChangesNothing(t *testing.T) {
	variants(t, func(t *testing.T, h *netns.Handle) {
		f := open(t, h, node)
		tab, ports := tables(article...)
		rules := Render(tab, ports, node)
		rules["KUBE-PORTALS-HOST"] = append(rules["KUBE-PORTALS-HOST"], Rule{"-j", "NO-SUCH-TARGET"})
		nstest.Do(t, h, func() error {
			if _, err := f.Apply(t.Context(), rules); err == nil || !strings.Contains(err.Error(), "NO-SUCH-TARGET") {
				t.Errorf("error: %v", err)
			}
			return nil
		})
		if out := saved(t, h, "iptables-save"); strings.Contains(out, "39770") {
			t.Errorf("half of the rules are in force:\n%s", out)
		}
	})
}

func TestMissingPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Open(node)
	want := "iptables: not found in PATH: install iptables (Debian: apt-get install iptables) or use --mode=nftables"
	if !errors.Is(err, ErrMissing) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
