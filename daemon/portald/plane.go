// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/ipt"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/engine/proxy"
)

// dataPlane is one way to answer portals.
type dataPlane interface {
	// Apply makes traffic follow t. It is idempotent, repairs what others broke, and leaves what is right alone.
	Apply(ctx context.Context, t portal.Table, tune map[service.Name]tuning.Settings) error
	// Plan says what Apply would change in the kernel, for people; empty: nothing.
	Plan(t portal.Table) (string, error)
	// Cleanup removes everything that Apply ever made, also by another process. It is no error if there is nothing.
	Cleanup(ctx context.Context) error
}

// recheck is how long rules that should not have changed are believed not to have changed.
const recheck = 10 * time.Second

// userspace is the article's data plane: iptables lead traffic to a proxy on this node.
type userspace struct {
	proxy *proxy.Proxy
	file  portsFile
	node  func() node.Node
	ports map[portal.Key]uint16 // as last applied

	families map[bool]*family // by Is4
}

// family is one address family's rules as last applied.
type family struct {
	ipt     *ipt.Family
	rules   ipt.Rules
	checked time.Time // when the kernel was last compared; zero: never
}

func (u *userspace) Apply(ctx context.Context, t portal.Table, tune map[service.Name]tuning.Settings) error {
	ports, proxyErr := u.proxy.Apply(t, tune)
	if err := u.file.save(ports); err != nil {
		return errors.Join(proxyErr, err)
	}
	u.ports = ports
	return errors.Join(proxyErr, u.eachFamily(t, ports, func(f *family, rules ipt.Rules) error {
		if time.Since(f.checked) < recheck && equal(f.rules, rules) {
			return nil
		}
		_, err := f.ipt.Apply(ctx, rules)
		if err == nil {
			f.rules, f.checked = rules, time.Now()
		}
		return err
	}))
}

func (u *userspace) Plan(t portal.Table) (string, error) {
	ports, err := u.file.load()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, key := range sortedKeys(t) {
		if ports[key] == 0 {
			fmt.Fprintf(&text, "# %s gets a new proxy port, and rules for it\n", key)
		}
	}
	err = u.eachFamily(t, ports, func(f *family, rules ipt.Rules) error {
		plan, err := f.ipt.Plan(rules)
		text.WriteString(plan)
		return err
	})
	return text.String(), err
}

// Cleanup treats missing iptables programs as missing rules.
func (u *userspace) Cleanup(context.Context) error {
	clear(u.families)
	var errs []error
	for _, addr := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		f, err := ipt.Open(addr)
		if errors.Is(err, ipt.ErrMissing) {
			continue
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, f.Cleanup())
	}
	if err := os.Remove(u.file.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// eachFamily renders the rules of each family and calls do with them: IPv4 always, IPv6 when there are such portals or
// have been.
func (u *userspace) eachFamily(t portal.Table, ports map[portal.Key]uint16, do func(*family, ipt.Rules) error) error {
	host, err := link.HostPrefixes()
	if err != nil {
		return err
	}
	var errs []error
	for _, v4 := range []bool{true, false} {
		f, used := u.families[v4]
		if !v4 && !used && !slices.ContainsFunc(sortedKeys(t), func(k portal.Key) bool { return k.Addr.Is6() }) {
			continue
		}
		uplink, _, err := link.DefaultUplink(map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[v4])
		if err != nil {
			return err
		}
		addr, ok := nodeAddr(v4, u.node(), host, uplink.Name)
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
			f = &family{ipt: opened}
			u.families[v4] = f
		}
		errs = append(errs, do(f, ipt.Render(t, ports, addr)))
	}
	return errors.Join(errs...)
}

func equal(a, b ipt.Rules) bool {
	same := func(a, b ipt.Rule) bool { return slices.Equal(a, b) }
	return slices.EqualFunc(a.Container, b.Container, same) && slices.EqualFunc(a.Host, b.Host, same)
}
