// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"
)

// garbage is how much of it there may be, in percent of what is in use. While a peer tells 100,000 routes half of all
// memory is garbage with Go's own 100; half of that costs a tenth more CPU time then, and nothing at rest.
const garbage = 50

// thrift sets it, unless the operator did (GOGC).
func thrift() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}
