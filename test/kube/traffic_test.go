// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab/place"
)

// traffic asks one address again and again, each time over a new connection, until it is told to stop.
type traffic struct {
	from    *place.Place
	addr    string
	stop    chan struct{}
	stopped sync.WaitGroup

	mu       sync.Mutex
	answers  int
	failures []string
}

func begin(from *place.Place, addr string) *traffic {
	f := &traffic{from: from, addr: addr, stop: make(chan struct{})}
	for range 2 {
		f.stopped.Go(f.run)
	}
	return f
}

func (f *traffic) run() {
	for {
		start := time.Now()
		_, err := f.from.Get(f.addr, "/")
		f.mu.Lock()
		if err == nil {
			f.answers++
		} else {
			f.failures = append(f.failures, fmt.Sprintf("%s after %v: %v", start.Format("15:04:05.000"), time.Since(start).Round(time.Millisecond), err))
		}
		f.mu.Unlock()
		select {
		case <-f.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// end stops the requests. None of them may have failed.
func (f *traffic) end(t *testing.T, during string) {
	t.Helper()
	close(f.stop)
	f.stopped.Wait()
	if len(f.failures) > 0 {
		t.Errorf("during %s, of %d requests to %s %d failed, the first at %s", during, f.answers+len(f.failures), f.addr, len(f.failures), f.failures[0])
		return
	}
	t.Logf("during %s, %d requests to %s, none failed", during, f.answers, f.addr)
	if f.answers < 10 {
		t.Errorf("too few requests to say anything about %s", during)
	}
}
