// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
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
		if err := forget(fd, family, listUDP(family), which); err != nil {
			return err
		}
	}
	return nil
}

// listUDP asks for all UDP flows.
func listUDP(family byte) []byte {
	proto := appendAttr(nil, protoNum, []byte{unix.IPPROTO_UDP})
	m := appendAttr(header(msgGet, unix.NLM_F_DUMP, family), ctaTupleOrig|nested, appendAttr(nil, tupleProto|nested, proto))
	flags := binary.NativeEndian.AppendUint32(nil, filterNum)
	return appendAttr(m, ctaFilter|nested, appendAttr(nil, filterOrigFlags, flags))
}
