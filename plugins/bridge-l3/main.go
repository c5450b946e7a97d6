// SPDX-License-Identifier: Apache-2.0

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command bridge-l3 is a CNI plugin that attaches pods to a bridge of a routed node: veth pair, address, default route, nothing masqueraded.
//
// The Go runtime's look at the cgroup's CPU limit is off: it reads the node's whole list of mounts, at every start.
package main

import (
	"runtime"

	"github.com/l3edge/l3edge/pkg/edge/cni"
)

func main() {
	runtime.LockOSThread() // namespaces belong to threads, and this process does one thing at a time
	cni.Main("bridge-l3", cni.Verbs{Add: add, Del: del, Check: check, GC: gc, Status: status})
}
