// SPDX-License-Identifier: Apache-2.0

package see

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/walk"
)

func newWhois() *cobra.Command {
	cmd := &cobra.Command{
		Use: "whois ADDRESS[:PORT]", Short: "Say whose an address is: a pod's, a service's, a node's, or nobody's; and which way leads to it", Args: cobra.ExactArgs(1),
		Example: "  l3ctl whois 10.100.87.105\n  l3ctl whois 10.20.30.62:39770   # a proxy port",
	}
	cmd.ValidArgsFunction = look.Complete(1, look.Addresses)
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, port, err := parseAddress(args[0])
		if err != nil {
			return err
		}
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		answers := walk.Whois(hs, a, port)
		if err := format.Print(cmd, answers, func(w io.Writer) {
			for _, x := range answers {
				look.Say(w, "%s", x.Title)
				for _, f := range x.Facts {
					look.Say(w, "  %s", f)
				}
				for _, r := range x.Routes {
					look.Say(w, "  way from %s", r)
				}
			}
		}); err != nil {
			return err
		}
		if answers[0].Kind == walk.IsUnknown {
			return look.Unhealthy
		}
		return nil
	}
	return cmd
}

// parseAddress reads ADDRESS or ADDRESS:PORT; without a port it is 0.
func parseAddress(text string) (netip.Addr, uint16, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a, 0, nil
	}
	p, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("%q is neither an address nor ADDRESS:PORT", text)
	}
	return p.Addr(), p.Port(), nil
}
