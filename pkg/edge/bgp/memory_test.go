// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"runtime"
	"testing"
)

// TestASpeakerAtRestIsSmall: every node carries one, and most have a handful of prefixes.
func TestASpeakerAtRestIsSmall(t *testing.T) {
	loopback(t)
	used := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := used()
	cfg := node(1)
	cfg.IPv4, cfg.IPv6 = true, true
	run(t, cfg)
	if took := used() - before; took > 2<<20 {
		t.Errorf("a speaker without a peer takes %d kB", took>>10)
	} else {
		t.Logf("%d kB", took>>10)
	}
}
