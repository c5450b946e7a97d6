// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// An endpoint goes down after as many failures as it takes, not before, and comes back after as many successes.
func TestWatchChangesItsMind(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	if err := l.Close(); err != nil { // nobody is there
		t.Fatal(err)
	}
	tune := tuning.Default()
	tune.Check, tune.CheckEvery, tune.CheckFailures, tune.CheckPasses = tuning.TCPCheck, 5*time.Millisecond, 3, 2
	ctx, cancel := context.WithCancel(t.Context())
	var down atomic.Bool
	told, done := make(chan error, 10), make(chan struct{})
	go func() {
		Watch(ctx, addr, tune, &down, func(err error) { told <- err })
		close(done)
	}()
	if err := <-told; err == nil || !down.Load() {
		t.Errorf("nobody is there: %v, down %v", err, down.Load())
	}
	if l, err = net.Listen("tcp4", addr.String()); err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test
	if err := <-told; err != nil || down.Load() {
		t.Errorf("somebody is there: %v, down %v", err, down.Load())
	}
	cancel()
	<-done
	if len(told) > 0 {
		t.Errorf("more was told: %v", <-told)
	}
}
