// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// ForgetServices deletes the flows of a protocol that few means or, where few is nil, in one walk of each family, those that
// which picks. Of protocols other than UDP only flows are meant that nobody has answered yet: the others know their ends.
// It acts in the namespace of the calling thread. It is for a daemon: it opens a socket of its own.
//
// A walk costs milliseconds, see pickFew; which must pick what few means, for a kernel that can do nothing but list.
func ForgetServices(p service.Protocol, few []Match, which func(Flow) bool) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open conntrack socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	walk := map[bool]bool{true: few == nil, false: few == nil}
	for _, m := range few {
		v4 := m.To.Addr().Is4()
		walk[v4] = walk[v4] || !v4 // see Forget
		if walk[v4] {
			continue
		}
		switch err := exchange(fd, unanswered(flush(family(v4), m), p), func([]byte) {}); {
		case err == nil || errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP):
			walk[v4] = true
		default:
			return fmt.Errorf("forget flows: %w", err)
		}
	}
	for v4, all := range walk {
		if all {
			if err := walkServices(fd, family(v4), p, which); err != nil {
				return err
			}
		}
	}
	return nil
}

func walkServices(fd int, family byte, p service.Protocol, which func(Flow) bool) error {
	var gone [][]byte
	err := exchange(fd, unanswered(list(family, p, 0), p), func(b []byte) {
		orig, status := attr(b, ctaTupleOrig), attr(b, ctaStatus)
		if proto := attr(orig, tupleProto, protoNum); len(proto) != 1 || proto[0] != byte(p) {
			return
		}
		if p != service.UDP && (len(status) != 4 || binary.BigEndian.Uint32(status)&seenReply != 0) { // kernels before 5.18 list all
			return
		}
		if which(Flow{p, address(orig, ipDst, protoDst), address(attr(b, ctaTupleReply), ipSrc, protoSrc)}) {
			gone = append(gone, removal(family, b))
		}
	})
	if err != nil {
		return fmt.Errorf("list flows: %w", err)
	}
	return remove(fd, gone)
}

const (
	ctaStatus     = 3
	ctaStatusMask = 26
	seenReply     = 1 << 1 // IPS_SEEN_REPLY, linux/netfilter/nf_conntrack_common.h
)

// unanswered narrows a request to flows that nobody has answered yet, but for UDP.
func unanswered(m []byte, p service.Protocol) []byte {
	if p == service.UDP {
		return m
	}
	m = appendAttr(m, ctaStatus, binary.BigEndian.AppendUint32(nil, 0))
	return appendAttr(m, ctaStatusMask, binary.BigEndian.AppendUint32(nil, seenReply))
}
