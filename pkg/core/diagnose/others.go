// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// others names the rules that portmap and ipMasq of the reference chain have left for containers which are gone: who changes
// the configuration under running pods has our plugins called for their DEL, and those know nothing of such rules. They are
// not ours to remove, so the fix is said, and no more.
func others(h view.Host) []Finding {
	var out []Finding
	for _, r := range h.Others {
		if slices.ContainsFunc(h.Pods, func(p view.Pod) bool { return strings.HasPrefix(p.Container, r.Container) }) {
			continue // a comment may have been too long for the whole of it
		}
		what := "a rule of the reference plugins in chain " + r.Chain
		if r.Handle == 0 {
			what = "a rule of the reference plugins leads to chain " + r.Chain
		}
		whose := fmt.Sprintf("for container %.13s", r.Container)
		if r.Network != "" {
			whose += " of network " + r.Network
		}
		f := Finding{
			Part: "cni", Problem: fmt.Sprintf("%s: %s %s, which is not on this node any more", r.Table, what, whose),
			Cause: "the configuration changed from portmap or ipMasq to our plugins while the container ran; now the rule meets whoever gets its address or asks for its port",
			Fix:   removal(r),
		}
		if !slices.ContainsFunc(h.Networks, func(n view.Network) bool { return n.Name == r.Network }) {
			f.Warning = true
			f.Fix = "if no other runtime has that container: " + f.Fix
		}
		out = append(out, f)
	}
	return out
}

// removal is the command that removes the rule, and with it a chain of iptables that is one container's.
func removal(r view.Rule) string {
	if family, ok := strings.CutPrefix(r.Table, "nft "); ok {
		return fmt.Sprintf("nft delete rule %s %s handle %d", family, r.Chain, r.Handle)
	}
	program := strings.TrimSuffix(r.Table, " nat") + " -t nat "
	return fmt.Sprintf("%s-D %s; %s-F %s; %s-X %s", program, strings.TrimPrefix(r.Text, "-A "), program, r.Chain, program, r.Chain)
}
