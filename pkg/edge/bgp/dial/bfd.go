// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// From RFC 5880 section 4.1 and RFC 5881 sections 4 and 5.
const (
	bfdPort     = 3784
	bfdFrom     = 49152 // the first port to send from
	bfdVersion  = 1 << 5
	bfdAdmin    = 7 // the diagnostic: administratively down
	bfdMult     = 3
	bfdSize     = 24
	bfdInterval = time.Second // what may be asked of a session that is down
	bfdTTL      = 255
)

// AdminDown tells a peer that its BFD session ends by will and not by a failure (RFC 5880 section 6.8.16, RFC 5882 section
// 4.2). mine and theirs are the discriminators. A packet may be lost, so there are three.
func AdminDown(from, peer netip.Addr, mine, theirs uint32) error {
	m := []byte{bfdVersion | bfdAdmin, 0, bfdMult, bfdSize}
	for _, v := range []uint32{mine, theirs, uint32(bfdInterval.Microseconds()), uint32(bfdInterval.Microseconds()), 0} {
		m = binary.BigEndian.AppendUint32(m, v)
	}
	level, ttl := unix.IPPROTO_IP, unix.IP_TTL
	if peer.Is6() {
		level, ttl = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	d := net.Dialer{
		LocalAddr: &net.UDPAddr{IP: from.AsSlice(), Zone: from.Zone(), Port: bfdFrom + rand.IntN(1<<16-bfdFrom)},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, ttl, bfdTTL) }), err)
		},
	}
	conn, err := d.Dial("udp", netip.AddrPortFrom(peer, bfdPort).String())
	if err != nil {
		return fmt.Errorf("end BFD: %w", err)
	}
	for range 3 {
		_, e := conn.Write(m)
		err = errors.Join(err, e)
	}
	return errors.Join(err, conn.Close())
}
