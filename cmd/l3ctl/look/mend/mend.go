// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/diagnose"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/edge/chain"
	"github.com/l3edge/l3edge/pkg/edge/fib"
	"github.com/l3edge/l3edge/pkg/edge/guard"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
)

// mend carries out one repair.
func mend(ctx context.Context, h view.Host, r diagnose.Repair) error {
	switch r.Op {
	case diagnose.SetSetting:
		return sysctl.Ensure(r.Name, r.Value)
	case diagnose.ReleaseLease:
		_, err := drop(h, *r.Lease, false)
		return err
	case diagnose.RedoPlugin:
		return redo(ctx, r)
	case diagnose.BindPort:
		return bind(r)
	case diagnose.AddRoute:
		if r.Netns == "" {
			return link.PutBack(r.Prefix, r.Via, mark.RouteRouted, fib.Metric)
		}
	case diagnose.JoinBridge, diagnose.LinkUp, diagnose.AddAddress:
	}
	if r.Netns == "" {
		return mendLink(r)
	}
	ns, err := netns.Open(r.Netns)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // a handle
	return ns.Do(func() error { return mendLink(r) })
}

// mendLink repairs a link of the calling thread's namespace.
func mendLink(r diagnose.Repair) error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Link(r.Link)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Link, err)
	}
	switch r.Op {
	case diagnose.JoinBridge:
		b, err := c.Link(r.Bridge)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Bridge, err)
		}
		if err := c.Join(l.Index, b.Index); err != nil {
			return err
		}
		return c.StartPort(attach.Port{Name: l.Name, Alias: l.Alias, Hairpin: r.Port.Hairpin, Isolated: r.Port.Isolated})
	case diagnose.LinkUp:
		return c.Up(l.Index, false)
	case diagnose.AddAddress:
		_, err := c.AddAddr(l.Index, r.Prefix, false)
		return err
	case diagnose.AddRoute:
		route := attach.Route{Dst: r.Prefix}
		if len(r.Via) > 0 {
			route.Via = r.Via[0]
		}
		return c.AddRoute(l.Index, route)
	case diagnose.SetSetting, diagnose.ReleaseLease, diagnose.RedoPlugin, diagnose.BindPort:
	}
	return fmt.Errorf("no repair is called %q", r.Op)
}

// cniPath is where plugins lie: CNI_PATH, or where every runtime looks.
func cniPath() string {
	if p := os.Getenv("CNI_PATH"); p != "" {
		return p
	}
	return "/opt/cni/bin"
}

func redo(ctx context.Context, r diagnose.Repair) error {
	a, err := attachment(r)
	if err != nil {
		return err
	}
	return a.Redo(ctx, cniPath(), r.Plugin)
}

// bind lets the port pass only what its pod may send, with the rules that make that so.
func bind(r diagnose.Repair) error {
	a, err := attachment(r)
	if err != nil {
		return err
	}
	c, err := guard.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	may, _ := look.Guard(a)
	return c.Set(r.Link, may)
}

// attachment is the one that is to be repaired.
func attachment(r diagnose.Repair) (chain.Attachment, error) {
	all, err := chain.List(chain.CacheDir)
	for _, a := range all {
		if a.Container == r.Container && a.IfName == r.IfName {
			return a, nil
		}
	}
	if err != nil {
		return chain.Attachment{}, err
	}
	return chain.Attachment{}, fmt.Errorf("container %s is gone", r.Container)
}

// check has every living attachment's plugins CHECK it and makes findings of what they say, but for pods that have one.
func check(ctx context.Context, h view.Host, found []diagnose.Finding) []diagnose.Finding {
	all, err := chain.List(chain.CacheDir)
	if err != nil {
		found = append(found, diagnose.Finding{Part: "runtime", Problem: err.Error(), Fix: "remove what cannot be read", Warning: true})
	}
	ill := map[string]bool{}
	for _, f := range found {
		ill[f.Part] = true
	}
	for _, a := range all {
		part := "pod " + a.Short()
		if p, ok := alive(h, a.Pod); !ok || !p.Alive || ill[part] {
			continue
		}
		if err := a.Check(ctx, cniPath()); err != nil {
			f := diagnose.Finding{Part: part, Problem: "CHECK of " + err.Error(), Cause: "it is not as ADD had made it", Fix: "delete the pod and let it be made anew"}
			if strings.HasPrefix(err.Error(), "portal: ") {
				f.Fix = "ADD of the portal plugin once more (doctor --repair)"
				f.Cause = "its host ports' rules were flushed (nft flush ruleset, a firewall that reloads)"
				f.Repair = &diagnose.Repair{Op: diagnose.RedoPlugin, Plugin: "portal", Container: a.Container, IfName: a.IfName}
			}
			found = append(found, f)
		}
	}
	return found
}

func alive(h view.Host, p view.Pod) (view.Pod, bool) {
	for _, x := range h.Pods {
		if x.Container == p.Container && x.IfName == p.IfName {
			return x, true
		}
	}
	return view.Pod{}, false
}
