// SPDX-License-Identifier: Apache-2.0

package fib

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/fib/wire"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestAnInterruptedDumpIsRepeated changes the addresses while they are being read: 1000 of them are several messages.
func TestAnInterruptedDumpIsRepeated(t *testing.T) {
	n, _, table, _ := node(t)
	var batch strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&batch, "addr add 10.99.%d.%d/32 dev ens18\n", i/250, i%250+1)
	}
	nstest.Sh(t, n, "ip -batch - <<EOF\n"+batch.String()+"EOF\n")
	for _, row := range []struct {
		changes int // in so many tries
		want    string
	}{{0, "1 tries"}, {1, "2 tries"}, {3, "4 tries"}, {100, "netlink dump: interrupted by changes ten times in a row"}} {
		tries, seen := 0, map[string]bool{}
		err := table.sock.Dump(wire.DumpAll(unix.RTM_GETADDR, unix.SizeofIfAddrmsg), func() { tries++; clear(seen) }, func(_ uint16, body []byte) error {
			if len(seen) == 0 && tries <= row.changes {
				nstest.Sh(t, n, fmt.Sprintf("ip addr add 10.98.%d.%d/32 dev ens18", row.changes, tries))
			}
			if self, _, ok := parseAddr(body); ok {
				seen[self.String()] = true
			}
			return nil
		})
		got := fmt.Sprintf("%d tries", tries)
		if err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%d changes: %s, want %s", row.changes, got, row.want)
		}
		if err == nil && row.changes > 0 && !seen[fmt.Sprintf("10.98.%d.%d", row.changes, row.changes)] {
			t.Errorf("%d changes: the last is not in the result", row.changes)
		}
	}
}

// TestAfterLostEvents: it is not known which links were up then, so any that is down now may have taken routes with it.
func TestAfterLostEvents(t *testing.T) {
	down := make([]byte, unix.SizeofIfInfomsg)
	wire.Native.PutUint32(down[4:], 7)
	for _, row := range []struct {
		name string
		w    Watch
		want int
	}{
		{"a link that was up goes down", Watch{up: map[int32]bool{7: true}}, 7},
		{"one that was down stays down", Watch{up: map[int32]bool{}}, 0},
		{"one of which nothing is known any more", Watch{up: map[int32]bool{}, unsure: true}, 7},
	} {
		var got Event
		row.w.event(wire.Header{Type: unix.RTM_NEWLINK}, down, func(e Event) { got = e })
		if !got.Topology || got.Link != row.want {
			t.Errorf("%s: %+v, want link %d", row.name, got, row.want)
		}
	}
}
