// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

func TestSessionAffinityIsKeptInNFTablesMode(t *testing.T) {
	w := newWorld(t)
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	w.write("web.yaml", strings.Replace(webfrontend("10.10.20.4", "10.10.10.3"), "spec:", "spec:\n  sessionAffinity: ClientIP", 1))
	p := w.start()
	p.synced("the portal", func(r portals.Report) bool { return len(r.Portals) == 1 && r.Portals[0].Mode == portals.NFTables })
	first := w.curl(w.client, vip)
	for range 20 { // by chance once in a million
		if got := w.curl(w.client, vip); got != first || !strings.Contains(got, " saw ") {
			t.Fatalf("%q, and then %q", first, got)
		}
	}
	p.stop()

	t.Run("once is enough", func(t *testing.T) {
		var said bytes.Buffer
		nstest.Do(t, w.node, func() error { return run(t.Context(), w.args("--once"), &said, &said) })
		for range 20 {
			if got := w.curl(w.client, vip); got != first {
				t.Fatalf("%q, and then %q; said %q", first, got, said.String())
			}
		}
	})
}
