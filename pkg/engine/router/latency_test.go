// SPDX-License-Identifier: Apache-2.0

package router

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestLatency: what waits for its round counts from when it was heard, and a round without a change counts for nothing.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k, r := setup()
		step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
		s.learn("10.10.20.0/24", "10.20.30.1")
		r.Heard()
		time.Sleep(20 * time.Millisecond)
		r.Heard() // more of the same round
		time.Sleep(20 * time.Millisecond)
		step(t, r, k, "after 40 ms", "+ 10.10.20.0/24: via 10.20.30.1\n")
		r.Heard()
		time.Sleep(time.Hour)
		step(t, r, k, "nothing to do", "")
		got := r.Status().Rounds.Latency
		if want := [13]uint64{0: 1, 6: 1}; got.Counts != want || got.Sum != 40*time.Millisecond {
			t.Errorf("got %v", got)
		}
	})
	t.Run("what fails counts from when it was heard first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, k, r := setup()
			step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
			s.learn("10.10.20.0/24", "10.20.30.1")
			r.Heard()
			r.TopologyChanged(true)
			k.broken = fmt.Errorf("no buffer space available")
			if r.Sync(t.Context()) == nil {
				t.Fatal("no error")
			}
			time.Sleep(300 * time.Millisecond)
			k.broken = nil
			step(t, r, k, "later", "+ 10.10.20.0/24: via 10.20.30.1\n")
			if got := r.Status().Rounds.Latency; got.Counts[9] != 1 {
				t.Errorf("got %v", got)
			}
		})
	})
}
