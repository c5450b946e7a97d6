// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/diagnose"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// treatment is what doctor found, did, and could not mend.
type treatment struct {
	Found    []diagnose.Finding `json:"found"`
	Repaired []repaired         `json:"repaired,omitempty"`
	Left     []diagnose.Finding `json:"left"`
}

type repaired struct {
	Problem string          `json:"problem"`
	Repair  diagnose.Repair `json:"repair"`
	Error   string          `json:"error,omitempty"`
}

// recovery is how long doctor waits for a daemon to put back what is its own to put back.
const recovery = 5 * time.Second

func newDoctor() *cobra.Command {
	repair := false
	cmd := &cobra.Command{
		Use: "doctor", Short: "Compare everything on this node with what it should be, name cause and fix, and mend what is ours", Args: cobra.NoArgs,
		Long: `Compare everything on this node with what it should be: daemons, bridges, veths, both ends of every pod's cable, addresses,
routes, rules, kernel settings, leases; and have the plugins CHECK every attachment. Each problem has its cause and its fix.
Status 2 when something is broken, or stays so after --repair.`,
		Example: "  l3ctl doctor\n  l3ctl doctor --repair",
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "put back what our own plugins and daemons had made")
	format := look.Output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		h, found := examine(ctx)
		t := treatment{Found: found, Left: found}
		if repair && len(found) > 0 {
			t.Repaired = treat(ctx, h, found)
			t.Left = convalesce(ctx)
		}
		if err := format.Print(cmd, t, func(w io.Writer) { t.write(w, repair) }); err != nil || diagnose.Healthy(t.Left) {
			return err
		}
		return look.Unhealthy
	}
	return cmd
}

// examine looks at the node and finds what is wrong with it.
func examine(ctx context.Context) (view.Host, []diagnose.Finding) {
	h := look.Host(ctx)
	if diagnose.RunsPods(h) {
		h.Others = others(ctx)
	}
	return h, check(ctx, h, diagnose.Host(h))
}

// others reads what the reference plugins have in the packet filter, with the programs that they call themselves. What is
// not installed, or has no such table, has none.
func others(ctx context.Context) (out []view.Rule) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, program := range []string{"iptables", "ip6tables"} {
		if text, err := exec.CommandContext(ctx, program+"-save", "-t", "nat").Output(); err == nil {
			out = append(out, view.ParseIPTables(program+" nat", string(text))...)
		}
	}
	for _, table := range []string{"ip cni_hostport", "ip6 cni_hostport", "inet cni_plugins_masquerade"} {
		if text, err := exec.CommandContext(ctx, "nft", append([]string{"-a", "list", "table"}, strings.Fields(table)...)...).Output(); err == nil {
			out = append(out, view.ParseNFTables("nft "+table, string(text))...)
		}
	}
	return out
}

// treat carries out every repair once.
func treat(ctx context.Context, h view.Host, found []diagnose.Finding) []repaired {
	var out []repaired
	for _, f := range found {
		if f.Repair == nil || contains(out, *f.Repair) {
			continue
		}
		r := repaired{Problem: f.String(), Repair: *f.Repair}
		if err := mend(ctx, h, *f.Repair); err != nil {
			r.Error = err.Error()
		}
		out = append(out, r)
	}
	return out
}

func contains(rs []repaired, r diagnose.Repair) bool {
	for _, x := range rs {
		if reflect.DeepEqual(x.Repair, r) {
			return true
		}
	}
	return false
}

// convalesce looks again until all is well, or a daemon has had its time.
func convalesce(ctx context.Context) []diagnose.Finding {
	for deadline := time.Now().Add(recovery); ; {
		_, left := examine(ctx)
		if diagnose.Healthy(left) || time.Now().After(deadline) || ctx.Err() != nil {
			return left
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (t treatment) write(w io.Writer, repair bool) {
	if len(t.Found) == 0 {
		look.Say(w, "all is well: every part and every pod's attachment is as it should be")
		return
	}
	if !repair {
		look.Findings(w, t.Found)
		n := 0
		for _, f := range t.Found {
			if f.Repair != nil {
				n++
			}
		}
		look.Say(w, "\n%d found; l3ctl doctor --repair mends %d of them", len(t.Found), n)
		return
	}
	for _, r := range t.Repaired {
		outcome := "done"
		if r.Error != "" {
			outcome = "FAILED: " + r.Error
		}
		look.Say(w, "%s\n         repair: %s: %s", r.Problem, describe(r.Repair), outcome)
	}
	for _, f := range t.Found {
		if f.Repair == nil && !stillThere(t.Left, f) {
			look.Say(w, "%s\n         mended by itself: %s", f, f.Fix)
		}
	}
	if len(t.Left) == 0 {
		look.Say(w, "all is well now")
		return
	}
	look.Say(w, "\nwhat is left:")
	look.Findings(w, t.Left)
}

func stillThere(left []diagnose.Finding, f diagnose.Finding) bool {
	for _, x := range left {
		if x.Part == f.Part && x.Problem == f.Problem {
			return true
		}
	}
	return false
}

// describe is a repair in words.
func describe(r diagnose.Repair) string {
	where := ""
	if r.Netns != "" {
		where = " in the pod"
	}
	switch r.Op {
	case diagnose.SetSetting:
		return fmt.Sprintf("set %s to %s", r.Name, r.Value)
	case diagnose.JoinBridge:
		return fmt.Sprintf("make %s a port of %s", r.Link, r.Bridge)
	case diagnose.LinkUp:
		return fmt.Sprintf("bring up %s%s", r.Link, where)
	case diagnose.AddAddress:
		return fmt.Sprintf("add %s to %s%s", r.Prefix, r.Link, where)
	case diagnose.AddRoute:
		return fmt.Sprintf("add the route to %s%s", r.Prefix, where)
	case diagnose.ReleaseLease:
		return "release " + r.Lease.Addr.String()
	case diagnose.BindPort:
		return "bind " + r.Link + " to its pod's addresses"
	case diagnose.RedoPlugin:
		return "ADD of " + r.Plugin + " once more"
	}
	return string(r.Op)
}
