// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

func TestWhatOthersFlushIsBackWithinASecond(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	p := w.start("--resync=0")
	p.synced("the portal", func(r portals.Report) bool { return len(r.Portals) == 1 })
	for _, how := range []string{"flush ruleset", "delete table ip l3edge", "flush map ip l3edge svc", "flush chain ip l3edge prerouting",
		"add table ip l3edge '{ flags dormant; }'", "chain ip l3edge filter-forward '{ policy drop; }'",
		"add chain ip l3edge x '{ type filter hook forward priority 0; policy drop; }'", "add set ip l3edge mine '{ type ipv4_addr; }'",
	} {
		before := nstest.Run(t, w.node, "nft", "list", "ruleset")
		began := time.Now()
		nstest.Sh(t, w.node, "nft "+how)
		eventually(t, how, func() bool { return nstest.Run(t, w.node, "nft", "list", "ruleset") == before })
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: repaired after %s", how, took)
		} else {
			t.Logf("%s: repaired after %s", how, took)
		}
		if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
			t.Errorf("%s: %q", how, got)
		}
	}
	if n := strings.Count(p.log.String(), "others changed our rules"); n == 0 {
		t.Error("the log says nothing")
	}
	p.stop()
}

func TestChainsThatOthersFlushAreBackWithinASecond(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) { chainsAreBack(t, backend) })
	}
}

// chainsAreBack has iptables be those of that back end.
func chainsAreBack(t *testing.T, backend string) {
	bin := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, what := range []string{"", "-restore", "-save"} {
			prog, err := exec.LookPath(name + "-" + backend + what)
			if err != nil {
				t.Fatalf("%s-%s%s is not installed: test/need.sh test", name, backend, what)
			}
			if err := os.Symlink(prog, filepath.Join(bin, name+what)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	p := w.start("--resync=0", "--mode=userspace")
	p.synced("the portal", func(r portals.Report) bool { return len(r.Portals) == 1 })
	iptables := filepath.Join(bin, "iptables") + " -w 5 -t nat "
	rules := func() string { return nstest.Sh(t, w.node, iptables+"-S") }
	for _, how := range []string{"-F", "-F KUBE-PORTALS-CONTAINER", "-D PREROUTING 1", "-D OUTPUT 1", "-A KUBE-PORTALS-HOST -j RETURN"} {
		before := rules()
		began := time.Now()
		nstest.Sh(t, w.node, iptables+how)
		eventually(t, how, func() bool { return rules() == before })
		if took := time.Since(began); took > 2*time.Second { // a second, and what this machine takes to list and restore
			t.Errorf("%s: repaired after %s", how, took)
		}
	}
	p.stop()
}
