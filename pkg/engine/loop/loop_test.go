// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// start runs a loop in the bubble and returns its triggers and the times of its runs since the start.
func start(t *testing.T, o Options, sync func(run int) error) (*Loop, func() []time.Duration) {
	t.Helper()
	var runs []time.Duration
	began := time.Now()
	o.Sync = func(context.Context) error {
		runs = append(runs, time.Since(began))
		return sync(len(runs))
	}
	l := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run after cancel: %v", err)
		}
	})
	return l, func() []time.Duration { synctest.Wait(); return runs }
}

func good(int) error { return nil }

func TestRunsAtStartAndOncePerBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, runs := start(t, Options{Settle: 5 * time.Millisecond}, good)
		if got := runs(); len(got) != 1 || got[0] != 0 {
			t.Fatalf("at start: runs at %v, want one at once", got)
		}
		time.Sleep(time.Hour)
		for range 100 {
			l.Trigger()
		}
		time.Sleep(2 * time.Millisecond)
		l.Trigger()
		time.Sleep(time.Hour)
		if got := runs(); len(got) != 2 || got[1] != time.Hour+5*time.Millisecond {
			t.Errorf("a burst of triggers: runs at %v, want one more, 5ms after the first trigger", got)
		}
	})
}

func TestTriggerWhileRunningCausesOneMoreRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, runs := start(t, Options{}, func(int) error { time.Sleep(time.Second); return nil })
		time.Sleep(time.Second / 2)
		for range 10 {
			l.Trigger()
		}
		time.Sleep(time.Hour)
		if got := runs(); len(got) != 2 || got[1] != time.Second {
			t.Errorf("runs at %v, want the second right after the first", got)
		}
	})
}

func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, runs := start(t, Options{Resync: time.Minute}, good)
		time.Sleep(time.Minute*10 + time.Second)
		if got := runs(); len(got) != 11 {
			t.Errorf("%d runs in ten minutes, want 11", len(got))
		}
	})
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		_, runs := start(t, Options{
			Name: "rules", Log: slog.New(slog.NewTextHandler(&log, nil)),
			MinBackoff: 100 * time.Millisecond, MaxBackoff: 800 * time.Millisecond,
		}, func(run int) error {
			if run <= 6 {
				return errors.New("locked")
			}
			return nil
		})
		time.Sleep(time.Hour)
		got := runs()
		if len(got) != 7 {
			t.Fatalf("%d runs, want six that fail and one that does not: %v", len(got), got)
		}
		for i, full := range []time.Duration{100, 200, 400, 800, 800, 800} {
			full *= time.Millisecond
			if d := got[i+1] - got[i]; d < full/2 || d > full {
				t.Errorf("pause %d: %v, want between %v and %v", i, d, full/2, full)
			}
		}
		if n := strings.Count(log.String(), "sync failed"); n != 1 {
			t.Errorf("the same error was logged %d times:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), `msg="sync recovered" task=rules failures=6`) {
			t.Errorf("recovery not logged:\n%s", log.String())
		}
	})
}

func TestTriggerCutsTheBackoffShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, runs := start(t, Options{MinBackoff: time.Hour}, func(run int) error {
			if run == 1 {
				return errors.New("no table yet")
			}
			return nil
		})
		time.Sleep(time.Second)
		l.Trigger()
		if got := runs(); len(got) != 2 || got[1] != time.Second {
			t.Errorf("runs at %v, want the second at the trigger", got)
		}
	})
}
