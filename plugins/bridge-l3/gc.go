// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/podnet"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

// gc removes every attachment of this network that the runtime does not name: link and lease, whichever is left.
func gc(c *cni.Call) error {
	conf := podnet.Locate(c.Keys)
	host, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer host.Close()
	store := lease.At(conf.LeaseDir + "/" + c.Net.Name)
	stale, err := store.Owners()
	if err != nil {
		return err
	}
	links, err := host.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if whose, ok := strings.CutPrefix(l.Alias, attach.AliasPrefix(c.Net.Name)); ok && l.Kind == "veth" {
			if id, ifName, ok := strings.Cut(whose, " "); ok {
				stale = append(stale, lease.Owner{ContainerID: id, IfName: ifName})
			}
		}
	}
	var errs []error
	for _, o := range stale {
		if slices.Contains(c.Net.Valid, cni.Attachment(o)) {
			continue
		}
		if err := collect(store, host, c.Net.Name, o); err != nil {
			errs = append(errs, fmt.Errorf("container %s, %s: %w", o.ContainerID, o.IfName, err))
		}
	}
	errs = append(errs, collectForeign(store, c.Net.Valid), collectForeign(hostLocal(c.Net.Name), c.Net.Valid), collectRenamed(c, host), prune(host))
	if conf.Delegate != "" {
		_, err := c.Delegate(conf.Delegate, "GC")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// collectForeign gives back what host-local holds in the store for attachments that the runtime does not name.
func collectForeign(store *lease.Store, valid []cni.Attachment) error {
	all, err := store.Foreign()
	errs := []error{err}
	for _, f := range all {
		if f.ContainerID != "" && !slices.ContainsFunc(valid, func(a cni.Attachment) bool { return f.Of(lease.Owner(a)) }) {
			errs = append(errs, store.DropForeign(f.Owner))
		}
	}
	return errors.Join(errs...)
}

// collectRenamed gives back what stores of other names hold of the network's pools for pods that have no link any more.
func collectRenamed(c *cni.Call, host *rtnl.Conn) error {
	conf, _, err := parse(c)
	if err != nil || complete(&conf) != nil {
		return nil //nolint:nilerr // nobody knows which pools
	}
	_, err = reclaimSiblings(host, conf, c.Net.Name, c.Net.Valid)
	return err
}

// prune removes what binds ports that are gone, whatever the configuration says of binding by now. The ports are listed
// after the bindings, so that one which is just being made is not taken for gone.
func prune(host *rtnl.Conn) error {
	g, err := guard.Dial()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil // no nftables, so nothing is bound
	}
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Prune(func() (map[string]bool, error) {
		links, err := host.Links()
		names := make(map[string]bool, len(links))
		for _, l := range links {
			names[l.Name] = true
		}
		return names, err
	})
}

func collect(store *lease.Store, host *rtnl.Conn, network string, o lease.Owner) error {
	l, err := store.Find(o)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return leaseError(err)
	}
	if l != nil {
		defer l.Close()
	}
	err = removePort(host, network, attach.PortName(o.ContainerID, o.IfName), l)
	if err != nil && !errors.Is(err, rtnl.ErrNoLink) {
		return err
	}
	if l == nil {
		return nil
	}
	return l.Release(nil)
}
