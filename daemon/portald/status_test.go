// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// TestVIPsWithoutNews answers in time: routed waits four seconds, and then takes portald for dead.
func TestVIPsWithoutNews(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.10.3"))
	p := w.start("--portal-net=10.100.0.0/16")
	p.synced("start", func(portals.Report) bool { return true })
	var first, second portals.VIPs
	if err := control.Dial(w.socket()).Get(t.Context(), "/vips", &first); err != nil || !first.Synced {
		t.Fatal(first, err)
	}
	began := time.Now()
	err := control.Dial(w.socket()).Get(t.Context(), "/vips?after="+first.State, &second)
	if took := time.Since(began); err != nil || second.State != first.State || took < time.Second || took > 3*time.Second {
		t.Errorf("%v, %v after %s", second, err, took)
	}
}
