// SPDX-License-Identifier: Apache-2.0

// Command bridge-l3 is a CNI plugin that attaches pods to a bridge of a routed node: veth pair, address, default route, nothing masqueraded.
package main

import "github.com/l3edge/l3edge/pkg/edge/cni"

func main() {
	cni.Main("bridge-l3", cni.Verbs{Add: add, Del: del, Check: check, GC: gc, Status: status, Problems: problems})
}
