// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/bgp"
)

func TestAFlappingSessionDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newSessionLog(slog.New(slog.NewTextHandler(&out, nil)))
		for range 1000 { // a hundred times a second
			l.tell(bgp.Session{Peer: "mls", State: bgp.Established})
			time.Sleep(5 * time.Millisecond)
			l.tell(bgp.Session{Peer: "mls", State: bgp.Idle, Problem: "the peer closed the connection"})
			time.Sleep(5*time.Millisecond - time.Microsecond)
		}
		l.tell(bgp.Session{Peer: "spine", State: bgp.Established})
		if n := strings.Count(out.String(), "peer=mls"); n != tellings+1 || strings.Count(out.String(), "session flaps") != 1 {
			t.Errorf("%d lines:\n%s", n, out.String())
		}
		if !strings.Contains(out.String(), "peer=spine") {
			t.Error("another peer is not told of")
		}
		time.Sleep(time.Second)
		l.tell(bgp.Session{Peer: "mls", State: bgp.Established})
		if n := strings.Count(out.String(), "peer=mls"); n != tellings+2 {
			t.Errorf("after a rest: %d lines", n)
		}
	})
}
