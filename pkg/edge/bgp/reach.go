// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/bgp/say"
)

// What gobgp has no door for we reach for. Tests fail when an update of gobgp moves any of it.

// handIn gives the connection to gobgp as if its listener had accepted it. gobgp has no door for that, so we reach for
// the channel between its listener and its server; TestAcceptChannel fails when an update of gobgp moves it.
func (s *Speaker) handIn(ctx context.Context, conn net.Conn) {
	select {
	case acceptChannel(s.srv) <- conn:
	case <-ctx.Done():
		_ = conn.Close()
	}
}

// acceptChannel is set once, by StartBgp, before anybody calls this.
func acceptChannel(srv *server.BgpServer) chan<- net.Conn {
	f := reflect.ValueOf(srv).Elem().FieldByName("acceptCh")
	if !f.IsValid() || f.Type() != reflect.TypeFor[chan net.Conn]() {
		panic("bgp: this gobgp has no accept channel")
	}
	return *(*chan net.Conn)(unsafe.Pointer(f.UnsafeAddr()))
}

// farthest lets peers with GTSM accept what we send from IPv6 listeners: gobgp v4.8 sets the TTL of IPv4 on them.
func farthest(srv *server.BgpServer) error {
	f := reflect.ValueOf(srv).Elem().FieldByName("listeners")
	all := reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
	var errs []error
	for i := range all.Len() {
		l, ok := all.Index(i).MethodByName("Listener").Call(nil)[0].Interface().(*net.TCPListener)
		if !ok || l.Addr().(*net.TCPAddr).IP.To4() != nil {
			continue
		}
		raw, err := l.SyscallConn()
		if err == nil {
			err = errors.Join(raw.Control(func(fd uintptr) {
				errs = append(errs, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, say.MaxTTL))
			}))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set hop limit: %w", err)
	}
	return nil
}
