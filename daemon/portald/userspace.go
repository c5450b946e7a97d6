// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/traffic"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/ipt"
	"github.com/l3edge/l3edge/pkg/edge/nft"
	"github.com/l3edge/l3edge/pkg/engine/portals"
	"github.com/l3edge/l3edge/pkg/engine/proxy"
)

// userspace is the article's data plane: iptables lead traffic to a proxy on this node.
type userspace struct {
	proxy *proxy.Proxy
	file  portsFile
	node  func() node.Node

	families map[bool]*ipt.Family // by Is4
	used     atomic.Bool          // there are rules to lose
	begin    sync.Once
	begun    chan struct{} // closed when used for the first time

	// As last applied.
	table portal.Table // by its identity
	ports map[portal.Key]uint16
	known bool // the kernel holds the rules for these
}

func (u *userspace) Apply(ctx context.Context, t portal.Table, tune map[service.Name]tuning.Settings) error {
	if err := u.unlead(ctx, t); err != nil {
		return err
	}
	ports, proxyErr := u.proxy.Apply(t, tune)
	u.used.Store(true)
	u.begin.Do(func() { close(u.begun) })
	if err := u.file.save(ports); err != nil {
		return errors.Join(proxyErr, err)
	}
	if len(u.families) == 0 && !anyIPv6(t) { // the first time: an earlier portald may have had IPv6 portals
		if err := cleanFamily(netip.IPv6Unspecified()); err != nil {
			return errors.Join(proxyErr, err)
		}
	}
	if !u.known || !maps.Equal(ports, u.ports) || !sameServices(u.table, t) {
		err := u.eachFamily(t, ports, func(f *ipt.Family, rules ipt.Rules) error {
			_, err := f.Apply(ctx, rules)
			return err
		})
		u.known = err == nil
		if err != nil {
			return errors.Join(proxyErr, err)
		}
	}
	u.table, u.ports = t, ports
	return proxyErr
}

// unlead takes away the rules of portals that go before the proxy closes their ports: until then whoever takes them over, such
// as the kernel, is not asked, and clients would be led to a closed door.
func (u *userspace) unlead(ctx context.Context, t portal.Table) error {
	stay := maps.Clone(u.ports)
	maps.DeleteFunc(stay, func(key portal.Key, _ uint16) bool { _, stays := t.Portals[key]; return !stays })
	if len(stay) == len(u.ports) {
		return nil
	}
	u.known = false
	err := u.eachFamily(t, stay, func(f *ipt.Family, rules ipt.Rules) error {
		_, err := f.Apply(ctx, rules)
		return err
	})
	if err != nil {
		return err
	}
	u.table, u.ports, u.known = t, stay, true
	return nil
}

// sameServices reports that both tables have the same rules, given the same ports: they differ in endpoints at most.
func sameServices(was, now portal.Table) bool {
	changed, known := now.Since(was)
	return known && !slices.ContainsFunc(changed, func(c portal.Change) bool {
		return c.Was == nil || c.Now == nil || c.Was.Service != c.Now.Service
	})
}

func (u *userspace) Forget() error {
	u.known = false
	return nil
}

// watch calls changed each time that somebody, this process included, has changed the chains of portals, until ctx ends. It
// does not listen before there are any: the kernel would write news of each service that nftables take.
func (u *userspace) watch(ctx context.Context, log *slog.Logger, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-u.begun:
	}
	w, err := nft.WatchIPTables()
	if err != nil {
		log.Warn("what others do to our chains is noticed late", "error", err)
		<-ctx.Done()
		return nil
	}
	return w.Run(ctx, u.lost(changed))
}

// lost calls changed if there are rules to lose.
func (u *userspace) lost(changed func()) func() {
	return func() {
		if u.used.Load() {
			changed()
		}
	}
}

// pulse is how often legacy iptables are asked whether they are as they were: they tell nobody.
const pulse = 500 * time.Millisecond

// feel is watch for those.
func (u *userspace) feel(ctx context.Context, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-u.begun:
	}
	changed = u.lost(changed)
	t := time.NewTicker(pulse)
	defer t.Stop()
	before := ipt.Feel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if now := ipt.Feel(); now != before {
			before = now
			changed()
		}
	}
}

// Ports and Stats make userspace a portals.Proxy.
func (u *userspace) Ports() map[portal.Key]uint16 { return u.ports }

// Stats is of the proxy alone.
func (u *userspace) Stats() map[portal.Key]traffic.Stats { return u.proxy.Stats() }

// Plan says what Apply would change in the kernel; empty: nothing.
func (u *userspace) Plan(t portal.Table) (string, error) {
	ports, err := u.file.load()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, key := range portals.Sorted(t.Portals) {
		if ports[key] == 0 {
			fmt.Fprintf(&text, "# %s gets a new proxy port, and rules for it\n", key)
		}
	}
	err = u.eachFamily(t, ports, func(f *ipt.Family, rules ipt.Rules) error {
		plan, err := f.Plan(rules)
		text.WriteString(plan)
		return err
	})
	return text.String(), err
}

// Cleanup takes back the rules, the proxy's sockets and the ports.
func (u *userspace) Cleanup(context.Context) error {
	u.used.Store(false)
	clear(u.families)
	u.table, u.ports, u.known, u.file.saved = portal.Table{}, nil, false, nil
	var errs []error
	for _, addr := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		errs = append(errs, cleanFamily(addr))
	}
	_, err := u.proxy.Apply(portal.Table{}, nil) // nobody is led to it any more
	errs = append(errs, err)
	if err := os.Remove(u.file.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// cleanFamily removes our rules of the family of addr. Where the programs are missing there are no rules either.
func cleanFamily(addr netip.Addr) error {
	f, err := ipt.Open(addr)
	if errors.Is(err, ipt.ErrMissing) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Cleanup()
}

// eachFamily renders the rules of each family and calls do with them: IPv4 always, IPv6 when there are such portals or
// have been.
func (u *userspace) eachFamily(t portal.Table, ports map[portal.Key]uint16, do func(*ipt.Family, ipt.Rules) error) error {
	var errs []error
	for _, v4 := range []bool{true, false} {
		f, used := u.families[v4]
		if !v4 && !used && !anyIPv6(t) {
			continue
		}
		addr, ok, err := hostAddr(v4, u.node())
		if err != nil {
			return err
		}
		if !ok {
			errs = append(errs, fmt.Errorf("apply rules: the node has no IPv%d address", map[bool]int{true: 4, false: 6}[v4]))
			continue
		}
		if f == nil {
			opened, err := ipt.Open(addr)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			f, u.families[v4] = opened, opened
		}
		errs = append(errs, do(f, ipt.Render(t, ports, addr)))
	}
	return errors.Join(errs...)
}

func anyIPv6(t portal.Table) bool {
	for key := range t.Portals {
		if key.Addr.Is6() {
			return true
		}
	}
	return false
}
