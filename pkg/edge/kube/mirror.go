// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// kind is one sort of object that is followed.
type kind[T runtime.Object] struct {
	resource string // as in the URL
	from     rest.Interface
	options  func(*metav1.ListOptions)
	empty    T

	put  func(key string, o T)
	drop func(key string)
}

// mirror is what one kind's reflector writes into. It keeps the objects' keys and nothing else of them.
type mirror[T runtime.Object] struct {
	kind[T]
	news    func()
	trouble func(error)

	mu     sync.Mutex
	keys   map[string]bool
	synced bool
}

// follow lists and watches one kind until ctx ends. news is called whenever something may have changed, with the first
// list in, trouble with each failure to reach the server, and with nil each time that it answers.
func follow[T runtime.Object](ctx context.Context, c *Client, k kind[T], news func(), trouble func(error)) *mirror[T] {
	m := &mirror[T]{kind: k, news: news, trouble: trouble, keys: map[string]bool{}}
	silent := logr.Discard() // trouble tells it, once
	backoff := c.retry
	r := cache.NewReflectorWithOptions(m.source(), k.empty, m, cache.ReflectorOptions{Name: k.resource, Logger: &silent, Backoff: &backoff})
	go r.RunWithContext(klog.NewContext(ctx, silent))
	return m
}

// source is the API server, overheard.
func (m *mirror[T]) source() *cache.ListWatch {
	lw := cache.NewFilteredListWatchFromClient(m.from, m.resource, metav1.NamespaceAll, m.options)
	list, watched := lw.ListWithContextFunc, lw.WatchFuncWithContext
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			l, err := list(ctx, o)
			m.overhear(ctx, err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := watched(ctx, o)
			m.overhear(ctx, err)
			return w, err
		},
	}
}

// overhear tells what an answer says of the server. Two errors belong to its normal life: it has forgotten the version from
// which a watch should go on, or does not know how to list by a watch; a new list follows both.
func (m *mirror[T]) overhear(ctx context.Context, err error) {
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		return
	}
	if err != nil {
		err = fmt.Errorf("kubernetes: %s: %w", m.resource, err)
	}
	m.trouble(err)
}

// Synced reports that the first list is in.
func (m *mirror[T]) Synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}

// Replace takes in a whole list.
func (m *mirror[T]) Replace(list []any, _ string) error {
	m.mu.Lock()
	gone := m.keys
	m.keys = make(map[string]bool, len(list))
	for _, o := range list {
		if obj, key, ok := m.key(o); ok {
			delete(gone, key)
			m.keys[key] = true
			m.put(key, obj)
		}
	}
	for key := range gone {
		m.drop(key)
	}
	m.synced = true
	m.mu.Unlock()
	m.news()
	return nil
}

// Add takes in one object.
func (m *mirror[T]) Add(o any) error {
	if obj, key, ok := m.key(o); ok {
		m.mu.Lock()
		m.keys[key] = true
		m.put(key, obj)
		m.mu.Unlock()
	}
	m.news()
	return nil
}

// Update is Add.
func (m *mirror[T]) Update(o any) error { return m.Add(o) }

// Delete forgets one object.
func (m *mirror[T]) Delete(o any) error {
	if _, key, ok := m.key(o); ok {
		m.mu.Lock()
		delete(m.keys, key)
		m.drop(key)
		m.mu.Unlock()
	}
	m.news()
	return nil
}

// Resync does nothing: everything is passed on at once.
func (m *mirror[T]) Resync() error { return nil }

// Transformer drops, before a list is gathered, what takes the most room and means nothing here.
func (m *mirror[T]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		if a, err := meta.Accessor(o); err == nil {
			a.SetManagedFields(nil)
		}
		return o, nil
	}
}

func (m *mirror[T]) key(o any) (obj T, key string, ok bool) {
	obj, ok = o.(T)
	if !ok {
		return obj, "", false
	}
	a, err := meta.Accessor(o)
	if err != nil {
		return obj, "", false
	}
	return obj, m.resource + "/" + a.GetNamespace() + "/" + a.GetName(), true
}

// calm is a pause in which what belongs together comes in: a Deployment's slices, a burst. A single change does not wait.
const calm = 2 * time.Millisecond

// signal is a channel that remembers one call.
type signal chan struct{}

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}
