// SPDX-License-Identifier: Apache-2.0

package see

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/plan"
	"github.com/l3edge/l3edge/pkg/core/subnet"
)

func newPlan() *cobra.Command {
	w := plan.Wish{Nodes: 16, Pods: 250, Services: 1 << 16}
	var cluster, portal string
	var avoid []string
	here := false
	cmd := &cobra.Command{
		Use: "plan", Short: "Divide addresses for a cluster, and explain the division", Args: cobra.NoArgs,
		Example: "  l3ctl plan --nodes=100 --pods=250\n  l3ctl plan --nodes=40 --pods=110 --avoid=10.20.0.0/16 --avoid=192.168.0.0/16 --this-host",
	}
	f := cmd.Flags()
	f.IntVar(&w.Nodes, "nodes", w.Nodes, "how many nodes the cluster may come to have")
	f.IntVar(&w.Pods, "pods", w.Pods, "how many pods a node may come to have")
	f.IntVar(&w.Services, "services", w.Services, "how many services the cluster may come to have")
	f.StringVar(&cluster, "cluster", "", "`prefix` of all pods (default: one that is free)")
	f.StringVar(&portal, "portal-net", "", "`prefix` of service addresses (default: one that is free)")
	f.StringArrayVar(&avoid, "avoid", nil, "a `prefix` that is in use elsewhere; repeatable")
	f.BoolVar(&here, "this-host", false, "also avoid what this host has routes to")
	format := look.Output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var errs []error
		parse := func(flag, text string) netip.Prefix {
			if text == "" {
				return netip.Prefix{}
			}
			p, err := subnet.Parse(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
			}
			return p
		}
		w.Cluster, w.Portal = parse("cluster", cluster), parse("portal-net", portal)
		for _, a := range avoid {
			if p := parse("avoid", a); p.IsValid() {
				w.Avoid = append(w.Avoid, p)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if here {
			for _, r := range look.Host(cmd.Context()).Routes {
				if r.Dst.Bits() > 0 && r.Dst.Addr().Is4() && r.Type == "" {
					w.Avoid = append(w.Avoid, r.Dst)
				}
			}
		}
		p, err := plan.Make(w)
		if err != nil {
			return err
		}
		return format.Print(cmd, p, func(out io.Writer) { _, _ = io.WriteString(out, p.String()) })
	}
	return cmd
}
