// SPDX-License-Identifier: Apache-2.0

package cni

import "slices"

// versions are those of the specification that this package speaks, oldest first.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

const (
	rank040 = 2 // the first with CHECK
	rank100 = 3 // the first without ips[].version
	rank110 = 4 // the first with GC, STATUS, mtu
)

// rank orders the known versions.
func rank(version string) (n int, ok bool) {
	n = slices.Index(versions, version)
	return n, n >= 0
}
