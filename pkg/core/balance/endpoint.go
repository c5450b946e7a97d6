// SPDX-License-Identifier: Apache-2.0

// Package balance chooses among the endpoints of a portal, by what is known of each.
package balance

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// Endpoint is one endpoint of one portal with what is known of it. Many connections may use it at once.
type Endpoint struct {
	Addr   netip.AddrPort
	Since  time.Time    // when it was added; zero: with the portal
	Active atomic.Int64 // connections open now
	Weight atomic.Int64 // as the settings say
	Down   atomic.Bool  // an active check says so

	failed  atomic.Int64 // connects that failed in a row
	resting atomic.Int64 // until when it is left alone after such failures, in Unix nanoseconds; 0: not at all
}

// Worked notes that the endpoint took a connection.
func (e *Endpoint) Worked() {
	if e.failed.Load() != 0 {
		e.failed.Store(0)
		e.resting.Store(0)
	}
}

// Refused notes that the endpoint did not take a connection, and reports whether it has to rest now: after EjectAfter
// failures for EjectFor, and twice as long each time it fails again right after its rest.
func (e *Endpoint) Refused(tune tuning.Settings, now time.Time) bool {
	n := e.failed.Add(1)
	if tune.EjectAfter == 0 || n < int64(tune.EjectAfter) {
		return false
	}
	again := min(n-int64(tune.EjectAfter), 3)
	was := e.resting.Swap(now.Add(tune.EjectFor << again).UnixNano())
	return was <= now.UnixNano()
}

// Usable reports whether the endpoint may be tried now.
func (e *Endpoint) Usable(now time.Time) bool {
	if e.Down.Load() {
		return false
	}
	until := e.resting.Load()
	return until == 0 || until <= now.UnixNano()
}
