// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"sync"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/nft"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// nftables is the kernel's data plane.
type nftables struct {
	mu    sync.Mutex // guards plane being opened: Apply and watch may both be first
	plane *nft.DataPlane

	localhost bool // 127.0.0.1 answers NodePorts
}

// localnet lets packets from and to 127.0.0.1 past the node's other links; a rule of the table lets in none but answers.
const localnet = "net/ipv4/conf/all/route_localnet"

func (n *nftables) open() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.plane != nil {
		return nil
	}
	plane, err := nft.New()
	if err != nil {
		return err
	}
	n.plane = plane
	return nil
}

// watch calls changed each time that somebody else has changed our tables, until ctx ends; and look once, for what happened
// before it listens. It does not while all services are being loaded: the kernel would write news of each.
func (n *nftables) watch(ctx context.Context, log *slog.Logger, loaded <-chan struct{}, look, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-loaded:
	}
	err := n.open()
	if err == nil {
		var w *nft.Watch
		if w, err = n.plane.Watch(); err == nil {
			look()
			return w.Run(ctx, changed)
		}
	}
	log.Warn("what others do to our rules is noticed late", "error", err)
	<-ctx.Done()
	return nil
}

func (n *nftables) Apply(ctx context.Context, t portal.Table, _ map[service.Name]tuning.Settings) error {
	if err := n.open(); err != nil {
		return err
	}
	// Without it an answer from a pod to its neighbour on the same bridge never meets the translation that it needs.
	for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		if _, err := sysctl.EnsureIfPresent(name, "1"); err != nil {
			return err
		}
	}
	if err := n.plane.Apply(ctx, t); err != nil || !n.localhost {
		return err
	}
	_, err := sysctl.EnsureIfPresent(localnet, "1") // when the rule is there
	return err
}

// Plan is the whole table, in the language of nft.
func (n *nftables) Plan(t portal.Table) (string, error) { return nft.Render(t), nil }

func (n *nftables) Cleanup(ctx context.Context) error {
	if err := n.open(); err != nil {
		return err
	}
	if n.localhost { // before the rule goes
		if _, err := sysctl.EnsureIfPresent(localnet, "0"); err != nil {
			return err
		}
	}
	return n.plane.Cleanup(ctx)
}

func (n *nftables) Forget() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.plane != nil {
		n.plane.Forget()
	}
	return nil
}
