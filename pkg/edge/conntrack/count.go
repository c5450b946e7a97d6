// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// From linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_tcp.h.
const (
	ctaProtoinfo = 4
	infoTCP      = 1
	tcpState     = 1
	tcpTimeWait  = 7 // and beyond: the connection is over
)

// Count counts the flows of both families that which picks by who sent them and where to, in the namespace of the calling
// thread. TCP connections that are over, and only remembered, do not count.
func Count(which func(from, to netip.Addr) bool) (n int, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open conntrack socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := exchange(fd, header(msgGet, unix.NLM_F_DUMP, family), func(b []byte) {
			if state := attr(b, ctaProtoinfo, infoTCP, tcpState); len(state) == 1 && state[0] >= tcpTimeWait {
				return
			}
			orig := attr(b, ctaTupleOrig)
			from, to := address(orig, ipSrc, protoSrc).Addr(), address(orig, ipDst, protoDst).Addr()
			if to.Is4() == (family == unix.AF_INET) && which(from, to) {
				n++
			}
		})
		if err != nil {
			return 0, fmt.Errorf("list flows: %w", err)
		}
	}
	return n, nil
}
