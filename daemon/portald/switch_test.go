// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// A service that moves between the data planes and back, under load, refuses nobody: the one that takes it over answers before
// the other stops, and nobody is led to a port that is closed. Also where it is the last of its mode.
func TestFireServiceMovesBetweenTheModes(t *testing.T) {
	for _, company := range []bool{false, true} {
		t.Run(map[bool]string{false: "alone", true: "not alone"}[company], func(t *testing.T) {
			w := newWorld(t)
			in := func(mode string) string {
				return strings.Replace(webfrontend("10.10.20.4"), "{name: webfrontend}", "{name: webfrontend, annotations: {l3edge.dev/mode: "+mode+"}}", 1)
			}
			w.pod(w.other, "far", "10.10.20.4:8080")
			w.write("web.yaml", in("userspace"))
			want := 1
			if company {
				want++
				w.write("other.yaml", strings.NewReplacer("webfrontend", "other", "10.100.87.105", "10.100.0.9").Replace(in("userspace")))
			}
			p := w.start("--resync=0")
			p.synced("the portals", func(r portals.Report) bool { return len(r.Portals) == want })
			l := w.visit(w.client, vip)
			for i := range 8 {
				mode := []string{"nftables", "userspace"}[i%2]
				time.Sleep(100 * time.Millisecond)
				w.write("web.yaml", in(mode))
				p.synced(mode, func(r portals.Report) bool {
					for _, one := range r.Portals {
						if one.Service == "default/webfrontend" {
							return string(one.Mode) == mode
						}
					}
					return false
				})
			}
			time.Sleep(100 * time.Millisecond)
			failed, of := failures(l.finish(), func(time.Time) bool { return true })
			if len(failed) > 0 || of < perSecond/4 {
				t.Errorf("%d of %d connections failed: %v", len(failed), of, failed[:min(len(failed), 5)])
			}
			t.Logf("%d connections over 8 moves", of)
			p.stop()
		})
	}
}
