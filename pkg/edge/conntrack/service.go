// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// ForgetServices deletes the UDP flows of both families that which picks, in one walk of each, in the namespace of the
// calling thread. It is for a daemon: it opens a socket of its own.
func ForgetServices(which func(Flow) bool) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open conntrack socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := forget(fd, family, listUDP(family), func(f Flow) bool { return f.Protocol == service.UDP && which(f) }); err != nil {
			return err
		}
	}
	return nil
}

// listUDP asks for all UDP flows.
func listUDP(family byte) []byte { return list(family, service.UDP, 0) }
