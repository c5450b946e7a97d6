// SPDX-License-Identifier: Apache-2.0

// Package loop keeps an outside thing as it should be: it runs one function on triggers, on a timer and after errors.
package loop

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Options say what to run and when. Zero durations take the defaults named here.
type Options struct {
	Name string // for the log: what is kept in order
	// Sync makes actual equal to desired. Runs never overlap; triggers that arrive meanwhile cause exactly one more.
	Sync func(ctx context.Context) error
	Log  *slog.Logger // nil: silent

	Settle     time.Duration // how long to collect triggers before a run; 0: not at all
	Resync     time.Duration // a run at least this often after a good one; 0: only on triggers
	MinBackoff time.Duration // wait after the first error, doubled with each further one: 100 ms
	MaxBackoff time.Duration // the longest wait: 30 s
}

// Loop is one such function with its triggers. Make it with New, start it with Run.
type Loop struct {
	o       Options
	pending chan struct{} // holds at most one trigger
}

// New returns a loop that runs nothing yet. It panics without a Sync.
func New(o Options) *Loop {
	if o.Sync == nil {
		panic("loop: no Sync")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = 100 * time.Millisecond
	}
	if o.MaxBackoff < o.MinBackoff {
		o.MaxBackoff = max(30*time.Second, o.MinBackoff)
	}
	return &Loop{o: o, pending: make(chan struct{}, 1)}
}

// Trigger asks for a run soon. It never blocks and may be called from anywhere, also before Run.
func (l *Loop) Trigger() {
	select {
	case l.pending <- struct{}{}:
	default: // the run that is pending anyway will see this change too
	}
}

// Run syncs once at once and then on every trigger until ctx ends, and returns nil. An error of Sync is logged when it
// first appears and when it changes, and retried with growing, jittered pauses; a trigger cuts the pause short.
func (l *Loop) Run(ctx context.Context) error {
	var failed failures
	for {
		l.drain()
		err := l.o.Sync(ctx)
		if ctx.Err() != nil {
			return nil
		}
		wait, timed := l.o.Resync, l.o.Resync > 0
		if err != nil {
			wait, timed = l.backoff(failed.count), true
		}
		failed.note(l.o, err, wait)
		if !l.sleep(ctx, wait, timed) {
			return nil
		}
	}
}

// sleep waits for a trigger or, if timed, for d; then for Settle, so that a burst makes one run. False: ctx has ended.
func (l *Loop) sleep(ctx context.Context, d time.Duration, timed bool) bool {
	var timer <-chan time.Time
	if timed {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer:
		return true
	case <-l.pending:
	}
	if l.o.Settle <= 0 {
		return true
	}
	t := time.NewTimer(l.o.Settle)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (l *Loop) drain() {
	select {
	case <-l.pending:
	default:
	}
}

// backoff is the pause after n earlier errors in a row: MinBackoff doubled n times, at most MaxBackoff, and of that a
// random part between a half and the whole, so that the nodes of a cluster do not retry in step.
func (l *Loop) backoff(n int) time.Duration {
	d := l.o.MaxBackoff
	if n < 30 && l.o.MinBackoff<<n < d {
		d = l.o.MinBackoff << n
	}
	return d/2 + rand.N(d/2+1)
}

// failures counts errors in a row and logs only what is new.
type failures struct {
	count int
	last  string
}

func (f *failures) note(o Options, err error, retry time.Duration) {
	if err == nil {
		if f.count > 0 {
			o.Log.Info("sync recovered", "task", o.Name, "failures", f.count)
		}
		*f = failures{}
		return
	}
	f.count++
	if msg := err.Error(); msg != f.last {
		f.last = msg
		o.Log.Error("sync failed", "task", o.Name, "error", err, "retry", retry.Round(time.Millisecond))
	}
}
