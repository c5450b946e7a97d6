// SPDX-License-Identifier: Apache-2.0

// Package reach is what gobgp has no door for. Tests fail when an update of gobgp moves any of it.
package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
	"golang.org/x/sys/unix"
)

// HandIn gives a connection to gobgp as if its listener had accepted it. gobgp has no door for that, so we reach for
// the channel between its listener and its server; TestAcceptChannel fails when an update of gobgp moves it.
func HandIn(ctx context.Context, srv *server.BgpServer, conn net.Conn) {
	select {
	case acceptChannel(srv) <- conn:
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

// Farthest lets peers with GTSM accept what we send from IPv6 listeners: gobgp v4.8 sets the TTL of IPv4 on them.
func Farthest(srv *server.BgpServer, ttl int) error {
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
				errs = append(errs, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl))
			}))
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set hop limit: %w", err)
	}
	return nil
}
