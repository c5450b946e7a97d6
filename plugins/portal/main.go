// SPDX-License-Identifier: Apache-2.0

// Command portal is a chained CNI plugin that leads ports of the node to pods (hostPort), as elements of one map.
package main

import "github.com/l3edge/l3edge/pkg/edge/cni"

func main() {
	cni.Main("portal", cni.Verbs{Add: add, Del: del, Check: check, GC: gc, Status: status, Problems: problems})
}
