// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/file"
	"github.com/l3edge/l3edge/pkg/edge/kube"
	"github.com/l3edge/l3edge/pkg/engine/task"
)

// source names where Services come from, for the log.
func (c config) source() string {
	switch {
	case !c.kubernetes:
		return c.services
	case c.api.Server != "":
		return "kubernetes " + c.api.Server
	}
	return "kubernetes"
}

// portalNet names the portal nets, for the log.
func (c config) portalNet() string {
	if c.followNets {
		return "kubernetes"
	}
	return join(c.nets)
}

// firstNets are the portal nets until the API server says.
func (c config) firstNets() []netip.Prefix {
	if c.followNets {
		return nil
	}
	return c.nets
}

// follow returns the tasks that keep the keeper informed of what is wanted; changed is called after each change.
func (w *wiring) follow(changed func()) ([]task.Task, error) {
	if !w.c.kubernetes {
		return []task.Task{{Name: "manifests", Run: func(ctx context.Context) error {
			return file.Watch(ctx, w.c.services, w.c.remember, func(d service.Delta, err error) {
				w.keeper.Change(d, err)
				changed()
			})
		}}}, nil
	}
	api, err := kube.Open(w.c.api)
	if err != nil {
		return nil, err
	}
	n := &newsroom{tell: func(d service.Delta, err error) {
		w.keeper.Change(d, err)
		changed()
	}}
	tasks := []task.Task{{Name: "services", Run: func(ctx context.Context) error {
		return api.Services(ctx, n.change, func(err error) {
			if err != nil {
				w.log.Warn("cannot read from the API server, keeping what it said", "error", err)
			} else {
				w.log.Info("the API server answers again")
			}
			n.trouble(err)
		})
	}}}
	if w.c.followNets {
		tasks = append(tasks, task.Task{Name: "portal nets", Run: func(ctx context.Context) error {
			return api.ServiceNets(ctx, func(nets []netip.Prefix) {
				if w.keeper.SetNets(nets) {
					w.log.Info("portal nets, as the API server says", "portalNet", join(nets))
					changed()
				}
			}, func(err error) {
				if err != nil {
					w.log.Warn("portal nets are unknown (--portal-net)", "error", err)
				}
			})
		}})
	}
	return tasks, nil
}

// newsroom adds what is wrong with the API server to what is wrong with its objects.
type newsroom struct {
	tell func(service.Delta, error)

	mu             sync.Mutex
	begun          bool // everything is known
	object, server error
}

func (n *newsroom) change(d service.Delta, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begun, n.object = true, err
	n.tell(d, errors.Join(n.server, err))
}

func (n *newsroom) trouble(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server = err; n.begun { // before that, nothing may be programmed
		n.tell(nil, errors.Join(err, n.object))
	}
}
