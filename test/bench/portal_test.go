// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/file"
)

// What portald reads and what kube-proxy is told must be the same services.
func TestBothSourcesSayTheSame(t *testing.T) {
	f := fleet{n: 2, per: sliceMost + 2}
	dir := t.TempDir()
	for i := range f.n {
		if err := os.WriteFile(filepath.Join(dir, name(i)+".yaml"), f.manifest(i, 3), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := file.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.n {
		svc := service.Name{Namespace: "default", Name: name(i)}
		if got, want := snap.Services[svc].ClusterIPs[0].String(), f.service(i).Spec.ClusterIP; got != want {
			t.Errorf("service %d: %s in the file, %s from the server", i, got, want)
		}
		in := map[netip.AddrPort]bool{}
		for _, e := range snap.Endpoints[service.PortName{Name: svc, Port: "http"}] {
			in[e.Addr] = true
		}
		for _, s := range f.slices(i, 3) {
			for _, e := range s.Endpoints {
				at := netip.AddrPortFrom(netip.MustParseAddr(e.Addresses[0]), uint16(*s.Ports[0].Port)) //nolint:gosec // a port
				if !in[at] {
					t.Errorf("service %d: %s is not in the file", i, at)
				}
				if f.version(at.Addr()) != 3 {
					t.Errorf("%s tells version %d", at, f.version(at.Addr()))
				}
				delete(in, at)
			}
		}
		if len(in) > 0 {
			t.Errorf("service %d: only in the file: %v", i, in)
		}
	}
}

func TestAPIServerListsAndWatches(t *testing.T) {
	f := fleet{n: 3, per: 2}
	s := newAPIServer()
	if err := s.fill(f); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	get := func(query string) io.ReadCloser {
		resp, err := http.Get(srv.URL + "/apis/discovery.k8s.io/v1/endpointslices?" + query)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp.Body
	}
	b, err := io.ReadAll(get(""))
	if err != nil {
		t.Fatal(err)
	}
	var list discovery.EndpointSliceList
	if err := list.Unmarshal(open(t, b).Raw); err != nil || len(list.Items) != f.n || list.Items[2].Name != f.slices(2, 0)[0].Name {
		t.Errorf("list: %v, %d items", err, len(list.Items))
	}

	stream := get("watch=true&sendInitialEvents=true")
	for _, want := range []string{"ADDED", "ADDED", "ADDED", "BOOKMARK"} {
		if e, _ := next(t, stream); e.Type != want {
			t.Errorf("%s, want %s", e.Type, want)
		}
	}
	if err := s.put("/apis/discovery.k8s.io/v1/endpointslices", f.slices(1, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if e, got := next(t, stream); e.Type != "MODIFIED" || f.version(netip.MustParseAddr(got.Endpoints[0].Addresses[0])) != 1 {
		t.Errorf("after a change: %s %v", e.Type, got.Endpoints)
	}
}

// open takes an object out of its envelope.
func open(t *testing.T, b []byte) (u runtime.Unknown) {
	t.Helper()
	if err := u.Unmarshal(b[len("k8s\x00"):]); err != nil {
		t.Fatal(err)
	}
	return u
}

// next reads one event of a watch.
func next(t *testing.T, r io.Reader) (e metav1.WatchEvent, s discovery.EndpointSlice) {
	t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	if err := e.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmarshal(open(t, e.Object.Raw).Raw); err != nil {
		t.Fatal(err)
	}
	return e, s
}
