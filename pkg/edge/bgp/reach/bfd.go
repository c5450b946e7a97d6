// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"net/netip"
	"reflect"
	"sync"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
)

// BFD is how one of gobgp's BFD sessions stood when it ended.
type BFD struct {
	Peer         netip.Addr
	Mine, Theirs uint32 // discriminators (RFC 5880 section 6.3); theirs is 0 when the peer was not heard
}

// StopBFD ends BFD inside gobgp, which says nothing to the peers, and returns what there was.
func StopBFD(srv *server.BgpServer) []BFD {
	s := field(reflect.ValueOf(srv), "bfdServer")
	if s.IsNil() {
		return nil
	}
	mu := field(s, "peersMutex").Addr().Interface().(*sync.RWMutex)
	mu.RLock()
	var peers []reflect.Value
	for _, p := range field(s, "peers").Seq2() {
		peers = append(peers, p)
	}
	mu.RUnlock()
	s.MethodByName("Stop").Call(nil) // waits until nobody changes anything
	var out []BFD
	for _, p := range peers {
		out = append(out, BFD{
			Peer: field(p, "peerAddress").Interface().(netip.Addr),
			Mine: uint32(field(p, "myDiscriminator").Uint()), Theirs: uint32(field(p, "yourDiscriminator").Uint()),
		})
	}
	return out
}

// field is a field of what v points to, whether it is exported or not.
func field(v reflect.Value, name string) reflect.Value {
	f := v.Elem().FieldByName(name)
	if !f.IsValid() {
		panic("bgp: this gobgp has no " + name)
	}
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}
