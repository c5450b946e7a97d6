// SPDX-License-Identifier: Apache-2.0

package router

import "time"

// Bounds are the upper ends of a Histogram's parts; the last part has none.
var Bounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
}

// Histogram counts how often something took how long.
type Histogram struct {
	Counts [len(Bounds) + 1]uint64 `json:"counts"` // by Bounds, each without those before it
	Sum    time.Duration           `json:"sum"`    // nanoseconds
}

func (h *Histogram) add(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += d
}
