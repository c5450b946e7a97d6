// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// TestRestartWithBadManifestsTakesNothingAway: whatever state the manifests are in when portald dies and comes back, what
// was right stays in the kernel.
func TestRestartWithBadManifestsTakesNothingAway(t *testing.T) {
	w := newWorld(t)
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.write("web.yaml", webfrontend("10.10.20.4"))
	for name, mishap := range map[string]func() error{
		"a manifest is broken":     func() error { return os.WriteFile(filepath.Join(w.dir, "web.yaml"), []byte("kind: [Service"), 0o600) },
		"the directory is missing": func() error { return os.Rename(w.dir, w.dir+".away") },
	} {
		t.Run(name, func(t *testing.T) {
			p := w.start()
			p.synced("the first sync", func(r portals.Report) bool { return len(r.Portals) == 1 })
			_ = p.cmd.Process.Signal(syscall.SIGKILL)
			_ = p.cmd.Wait()
			if err := mishap(); err != nil {
				t.Fatal(err)
			}
			p = w.start()
			r := p.synced("the sync after the restart", func(r portals.Report) bool { return len(r.Problems) > 0 })
			if len(r.Portals) != 1 {
				t.Errorf("in force after the restart: %+v", r.Portals)
			}
			if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
				t.Errorf("from a pod: %q", got)
			}
			p.stop()
			if _, err := os.Stat(w.dir + ".away"); err == nil {
				if err := os.Rename(w.dir+".away", w.dir); err != nil {
					t.Fatal(err)
				}
			}
			w.write("web.yaml", webfrontend("10.10.20.4"))
		})
	}
}

// TestOnceRefusesAMissingDirectory: a path that is wrong does not empty the kernel.
func TestOnceRefusesAMissingDirectory(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p := w.start()
	p.synced("the first sync", func(r portals.Report) bool { return len(r.Portals) == 1 })
	p.stop()
	if err := os.Rename(w.dir, w.dir+".away"); err != nil {
		t.Fatal(err)
	}
	p = w.start("--once")
	if err := p.cmd.Wait(); err == nil || !strings.Contains(p.log.String(), "no such file or directory") {
		t.Errorf("%v, %s", err, p.log)
	}
	if rules := nstest.Sh(t, w.node, "nft list ruleset"); !strings.Contains(rules, "10.100.87.105") {
		t.Errorf("the portal is gone:\n%s", rules)
	}
}

// TestSecondPortaldIsRefused: two would undo each other's work, also when they were given different sockets.
func TestSecondPortaldIsRefused(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p := w.start()
	p.synced("the first sync", func(r portals.Report) bool { return len(r.Portals) == 1 })
	second := w.start("--socket=" + filepath.Join(w.run, "another.sock"))
	if err := second.cmd.Wait(); err == nil || !strings.Contains(second.log.String(), "another portald runs in this network namespace") {
		t.Errorf("%v, %s", err, second.log)
	}
}
