// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"cmp"
	"slices"
	"sync"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Object is what one Kubernetes object means to a portal: a Service, or a part of the endpoints of some.
type Object struct {
	Service *service.Service
	Slices  []Slice // of one EndpointSlice, or of all subsets of an Endpoints
}

// Book holds the objects of a source and says which Services they change. A source puts each object in when it comes or
// changes, takes it out when it goes, and hands over what Take returns now and then, the first time when it knows
// everything. Whatever the number of Services, a change costs what the Service that it touches costs. It may be used
// concurrently: an informer for Services and one for EndpointSlices may share it.
type Book struct {
	mu      sync.Mutex
	objects map[string]Object
	entries map[service.Name]*entry
	dirty   map[service.Name]bool
}

// entry is what is known of one Service.
type entry struct {
	service *service.Service
	parts   []part // sorted by key
}

type part struct {
	key    string
	slices []Slice
}

// NewBook returns an empty Book.
func NewBook() *Book {
	return &Book{objects: map[string]Object{}, entries: map[service.Name]*entry{}, dirty: map[service.Name]bool{}}
}

// Put takes in the object of that key, which is the source's own: kind, namespace and name. An earlier object of the key
// is forgotten. An object that means nothing to a portal is Deleted.
func (b *Book) Put(key string, o Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(key)
	b.objects[key] = o
	if o.Service != nil {
		b.touch(o.Service.Name).service = o.Service
	}
	for i, s := range o.Slices {
		e := b.touch(s.Service)
		at, held := e.find(key)
		if !held {
			e.parts = slices.Insert(e.parts, at, part{key: key})
		}
		e.parts[at].slices = append(e.parts[at].slices, o.Slices[i:i+1]...)
	}
}

// Delete forgets the object of that key, if there is one.
func (b *Book) Delete(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(key)
}

func (b *Book) remove(key string) {
	o, ok := b.objects[key]
	if !ok {
		return
	}
	delete(b.objects, key)
	if o.Service != nil {
		if e := b.touch(o.Service.Name); e.service == o.Service {
			e.service = nil
		}
	}
	for _, s := range o.Slices {
		e := b.touch(s.Service)
		if at, held := e.find(key); held {
			e.parts = slices.Delete(e.parts, at, at+1)
		}
	}
}

func (e *entry) find(key string) (int, bool) {
	return slices.BinarySearchFunc(e.parts, key, func(p part, key string) int { return cmp.Compare(p.key, key) })
}

func (b *Book) touch(name service.Name) *entry {
	b.dirty[name] = true
	e := b.entries[name]
	if e == nil {
		e = &entry{}
		b.entries[name] = e
	}
	return e
}

// Take returns what has changed since it was called last; nil: nothing has. Endpoints of a Service that is not there are
// kept and left out.
func (b *Book) Take() service.Delta {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.dirty) == 0 {
		return nil
	}
	d := make(service.Delta, len(b.dirty))
	for name := range b.dirty {
		e := b.entries[name]
		if d[name] = e.state(); e.service == nil && len(e.parts) == 0 {
			delete(b.entries, name)
		}
	}
	b.dirty = map[service.Name]bool{}
	return d
}

func (e *entry) state() *service.State {
	if e.service == nil {
		return nil
	}
	s := &service.State{Service: *e.service, Endpoints: make([][]service.Endpoint, len(e.service.Ports))}
	for i, p := range e.service.Ports {
		s.Endpoints[i] = e.merge(p)
	}
	return s
}
