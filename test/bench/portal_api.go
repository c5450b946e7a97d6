// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// apiServer serves what kube-proxy lists and watches, as a Kubernetes API server does: over HTTP, in protobuf, with
// streaming lists (KEP-3157). It keeps objects encoded, so that serving them costs the machine next to nothing.
type apiServer struct {
	kinds map[string]*kind // by path

	mu      sync.Mutex
	version int
}

// kind is one resource: its objects in order, and the queues of those who watch.
type kind struct {
	typ      runtime.TypeMeta
	bookmark object // an object of the kind with nothing in it
	objects  [][]byte
	at       map[string]int // by namespace/name
	watchers map[chan []byte]bool
}

// object is what the generated types of k8s.io/api can do.
type object interface {
	metav1.Object
	Marshal() ([]byte, error)
}

const protobuf = "application/vnd.kubernetes.protobuf"

func newAPIServer() *apiServer {
	s := &apiServer{kinds: map[string]*kind{}, version: 1}
	for path, k := range map[string]*kind{
		"/api/v1/nodes":    {typ: runtime.TypeMeta{APIVersion: "v1", Kind: "Node"}, bookmark: &v1.Node{}},
		"/api/v1/services": {typ: runtime.TypeMeta{APIVersion: "v1", Kind: "Service"}, bookmark: &v1.Service{}},
		"/apis/discovery.k8s.io/v1/endpointslices": {typ: runtime.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, bookmark: &discovery.EndpointSlice{}},
		"/apis/networking.k8s.io/v1/servicecidrs":  {typ: runtime.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"}, bookmark: &networking.ServiceCIDR{}},
	} {
		k.at, k.watchers = map[string]int{}, map[chan []byte]bool{}
		s.kinds[path] = k
	}
	return s
}

// put stores an object and tells those who watch.
func (s *apiServer) put(path string, o object) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[path]
	s.version++
	o.SetResourceVersion(strconv.Itoa(s.version))
	b, err := k.encode(o)
	if err != nil {
		return err
	}
	event, id := "MODIFIED", o.GetNamespace()+"/"+o.GetName()
	if i, ok := k.at[id]; ok {
		k.objects[i] = b
	} else {
		event = "ADDED"
		k.at[id] = len(k.objects)
		k.objects = append(k.objects, b)
	}
	for w := range k.watchers {
		w <- frame(event, b)
	}
	return nil
}

// encode wraps an object as it goes over the wire: a magic number and a runtime.Unknown.
func (k *kind) encode(o object) ([]byte, error) {
	raw, err := o.Marshal()
	if err != nil {
		return nil, err
	}
	return envelope(k.typ, raw)
}

func envelope(typ runtime.TypeMeta, raw []byte) ([]byte, error) {
	b, err := (&runtime.Unknown{TypeMeta: typ, Raw: raw}).Marshal()
	return append([]byte("k8s\x00"), b...), err
}

// frame is one event of a watch: its length, and a metav1.WatchEvent.
func frame(event string, object []byte) []byte {
	b, err := (&metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: object}}).Marshal()
	if err != nil {
		panic("encode a watch event: " + err.Error())
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) //nolint:gosec // small
}

// ServeHTTP answers lists and watches. Who posts an event is told that it was taken.
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, one, _ := strings.Cut(r.URL.Path, "/nodes/")
	if one != "" {
		path += "/nodes"
	}
	k, ok := s.kinds[path]
	switch {
	case r.Method == http.MethodPost:
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	case !ok:
		http.NotFound(w, r)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, k)
	default:
		s.list(w, k, one != "")
	}
}

// list answers with all objects, or with the only one.
func (s *apiServer) list(w http.ResponseWriter, k *kind, one bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", protobuf)
	if one && len(k.objects) > 0 {
		_, _ = w.Write(k.objects[0])
		return
	}
	list := metav1.List{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(s.version)}}
	for _, o := range k.objects {
		var u runtime.Unknown
		if err := u.Unmarshal(o[4:]); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		list.Items = append(list.Items, runtime.RawExtension{Raw: u.Raw})
	}
	raw, err := marshalList(list)
	if err == nil {
		raw, err = envelope(runtime.TypeMeta{APIVersion: k.typ.APIVersion, Kind: k.typ.Kind + "List"}, raw)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(raw)
}

// marshalList encodes a list of any kind: field 1 its metadata, field 2 each item, which is encoded already.
func marshalList(l metav1.List) ([]byte, error) {
	meta, err := l.ListMeta.Marshal()
	if err != nil {
		return nil, err
	}
	field := func(b []byte, tag byte, v []byte) []byte {
		return append(binary.AppendUvarint(append(b, tag<<3|2), uint64(len(v))), v...)
	}
	b := field(nil, 1, meta)
	for _, item := range l.Items {
		b = field(b, 2, item.Raw)
	}
	return b, nil
}

// watch sends all objects first, if asked, and a bookmark to say so; then what comes.
func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, k *kind) {
	queue := make(chan []byte, 1<<16)
	s.mu.Lock()
	var first []byte
	var err error
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range k.objects {
			first = append(first, frame("ADDED", o)...)
		}
		k.bookmark.SetResourceVersion(strconv.Itoa(s.version))
		k.bookmark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		var b []byte
		if b, err = k.encode(k.bookmark); err == nil {
			first = append(first, frame("BOOKMARK", b)...)
		}
	}
	k.watchers[queue] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(k.watchers, queue)
		s.mu.Unlock()
	}()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", protobuf+";stream=watch")
	_, err = w.Write(first)
	for err == nil {
		w.(http.Flusher).Flush()
		select {
		case b := <-queue:
			_, err = w.Write(b)
		case <-r.Context().Done():
			return
		}
	}
}

// serve answers on loopback of the host until ctx ends, and returns the URL.
func (s *apiServer) serve(ctx context.Context, h *host) (url string, err error) {
	var l net.Listener
	if err := h.ns.Do(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:0"); return err }); err != nil {
		return "", err
	}
	srv := &http.Server{Handler: s, BaseContext: func(net.Listener) context.Context { return ctx }} //nolint:gosec // our own client
	go func() { _ = srv.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	return fmt.Sprintf("http://%s", l.Addr()), nil
}

// fill stores the objects of a fleet and the node's own.
func (s *apiServer) fill(f fleet) error {
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "bench", UID: "n"},
		Status:     v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: nodeOutside.String()}}},
	}
	if err := s.put("/api/v1/nodes", node); err != nil {
		return err
	}
	for i := range f.n {
		if err := s.put("/api/v1/services", f.service(i)); err != nil {
			return err
		}
		for _, e := range f.slices(i, 0) {
			if err := s.put("/apis/discovery.k8s.io/v1/endpointslices", e); err != nil {
				return err
			}
		}
	}
	return nil
}
