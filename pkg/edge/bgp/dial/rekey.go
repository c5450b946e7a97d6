// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Rekey gives this process's sockets with a peer another key for TCP MD5, and those that listen on port, so that sessions
// stand while both sides change theirs: TCP sends again what was dropped in between. local, where it is valid, is our end.
func Rekey(local, peer netip.Addr, port int, key string) error {
	open, err := os.ReadDir("/proc/self/fd") // connections that gobgp accepted are nowhere else to be had
	if err != nil {
		return fmt.Errorf("change the key: %w", err)
	}
	var errs []error
	for _, e := range open {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0) // ours may be closed at any time, and be another then
		if err != nil {
			continue
		}
		if isWith(fd, local, peer, port) {
			errs = append(errs, sign(fd, peer, key))
		}
		_ = unix.Close(fd)
	}
	return errors.Join(errs...)
}

// isWith reports that a socket is a TCP connection with the peer, or listens for it.
func isWith(fd int, local, peer netip.Addr, port int) bool {
	if p, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || p != unix.IPPROTO_TCP {
		return false
	}
	here, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	at := addrPort(here)
	if at.Addr().BitLen() != peer.BitLen() {
		return false
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
		return int(at.Port()) == port
	}
	there, err := unix.Getpeername(fd)
	return err == nil && addrPort(there).Addr() == peer.WithZone("") && (!local.IsValid() || at.Addr() == local.WithZone(""))
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch x := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(x.Addr), uint16(x.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(x.Addr), uint16(x.Port))
	}
	return netip.AddrPort{}
}
