// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

// A pod may end without a DEL: the runtime has forgotten it, or was killed together with an ADD. Its namespace took the link
// along, and the lease stays until a GC, for which few runtimes ask. When no address is left such leases go.

// forgotten is how long a lease rests before it may be taken for forgotten.
const forgotten = time.Minute

// hostPortDir is portal's.
var hostPortDir = mark.HostPortDir

// reclaim releases the leases of pods that have no link any more, other than those to keep, and returns how many. It is safe because a lease names
// the node's end of its link, and that is looked for while the lease is locked, in the namespace that made it: no ADD is
// about to make it, and a pod without it reaches nobody. Leases without such a name (of an import, damaged) stay, and so
// do those of pods whose hostPorts still lead to the address: they are for portal's DEL.
func reclaim(host *rtnl.Conn, store *lease.Store, network string, keep []cni.Attachment) (int, error) {
	node, err := ownNamespace()
	if err != nil {
		return 0, err
	}
	return store.Reclaim(forgotten, func(r *lease.Lease) (bool, error) {
		if r.Port == "" || r.Node != node || slices.Contains(keep, cni.Attachment(r.Owner)) {
			return false, nil
		}
		if hasPorts(network, r.Owner) {
			return false, nil
		}
		if _, err := host.Link(r.Port); !errors.Is(err, rtnl.ErrNoLink) {
			return false, err
		}
		if err := removePort(host, network, r.Port, r); !errors.Is(err, rtnl.ErrNoLink) && err != nil {
			return false, err
		}
		return true, nil
	})
}

// hasPorts says that hostPorts of the attachment lead to its address still, or that nobody knows.
func hasPorts(network string, o lease.Owner) bool {
	var st unix.Stat_t
	return !errors.Is(unix.Stat(hostPortDir+"/"+network+"/"+o.ContainerID+":"+o.IfName, &st), fs.ErrNotExist)
}

// ownNamespace is the inode of the node's namespace.
func ownNamespace() (int, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("stat own netns: %w", err)
	}
	return int(st.Ino), nil //nolint:gosec // 32 bits (proc_alloc_inum)
}
