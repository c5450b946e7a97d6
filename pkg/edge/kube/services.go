// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// notOurs leaves out, at the server, what no portal answers: Services that another proxy serves, and headless ones. It is
// what kube-proxy asks for, too.
const notOurs = "!service.kubernetes.io/service-proxy-name,!" + v1.IsHeadlessService

// Services tells emit what portals are wanted, until ctx ends: at first everything, once both Services and EndpointSlices
// are known, then each change within milliseconds. The error joins one for each object that could not be understood; such
// an object keeps its last good meaning. trouble is told when the API server cannot be read, and nil when it can again;
// what it said last stays in force meanwhile. Neither is called concurrently with itself.
func (c *Client) Services(ctx context.Context, emit func(service.Delta, error), trouble func(error)) error {
	f := &feed{book: kubeobj.NewBook(), problems: map[string]error{}, news: make(signal, 1)}
	h := &health{tell: trouble, failed: map[string]bool{}}
	svcs := follow(ctx, c, kind[*v1.Service]{
		resource: "services", from: c.core, empty: &v1.Service{}, put: f.service, drop: f.drop,
		options: func(o *metav1.ListOptions) { o.LabelSelector = notOurs },
	}, f.news.raise, h.of("services"))
	eps := follow(ctx, c, kind[*discovery.EndpointSlice]{
		resource: "endpointslices", from: c.discovery, empty: &discovery.EndpointSlice{}, put: f.endpoints, drop: f.drop,
		options: func(o *metav1.ListOptions) { o.LabelSelector = notOurs },
	}, f.news.raise, h.of("endpointslices"))
	first := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.news:
		}
		if !svcs.Synced() || !eps.Synced() {
			continue
		}
		delta, err, changed := f.take()
		if delta == nil && !changed && !first {
			continue
		}
		first = false
		emit(delta, err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(calm):
		}
	}
}

// feed turns objects into a Book's.
type feed struct {
	book *kubeobj.Book
	news signal

	mu       sync.Mutex
	problems map[string]error // by the object's key
	changed  bool             // problems, since they were told
}

func (f *feed) service(key string, o *v1.Service) {
	svc, ok, err := kubeobj.Service(o)
	f.take1(key, kubeobj.Object{Service: &svc}, ok, err, "Service", o.Namespace, o.Name)
}

func (f *feed) endpoints(key string, o *discovery.EndpointSlice) {
	part, ok, err := kubeobj.EndpointSlice(o)
	f.take1(key, kubeobj.Object{Slices: []kubeobj.Slice{part}}, ok, err, "EndpointSlice", o.Namespace, o.Name)
}

// take1 puts one object into the Book. What cannot be understood keeps its last good meaning.
func (f *feed) take1(key string, o kubeobj.Object, ok bool, err error, kind, namespace, name string) {
	switch {
	case err != nil:
		err = fmt.Errorf("%s %s/%s: %w", kind, namespace, name, err)
	case ok:
		f.book.Put(key, o)
	default:
		f.book.Delete(key)
	}
	f.note(key, err)
}

func (f *feed) drop(key string) {
	f.book.Delete(key)
	f.note(key, nil)
}

func (f *feed) note(key string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.problems[key]
	if err == nil {
		delete(f.problems, key)
	} else {
		f.problems[key] = err
	}
	f.changed = f.changed || (was == nil) != (err == nil) || was != nil && was.Error() != err.Error()
}

// take returns what has changed, everything that is wrong, and whether the latter is news.
func (f *feed) take() (service.Delta, error, bool) {
	delta := f.book.Take()
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := f.changed
	f.changed = false
	errs := slices.SortedFunc(maps.Values(f.problems), func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return delta, errors.Join(errs...), changed
}

// health tells of the API server when that changes.
type health struct {
	tell func(error)

	mu     sync.Mutex
	failed map[string]bool // by resource
}

func (h *health) of(resource string) func(error) {
	return func(err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		was := len(h.failed) > 0
		if err != nil {
			h.failed[resource] = true
		} else {
			delete(h.failed, resource)
		}
		if now := len(h.failed) > 0; now != was {
			h.tell(err)
		}
	}
}
