// SPDX-License-Identifier: Apache-2.0

package see

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/diagnose"
	"github.com/l3edge/l3edge/pkg/core/ipam"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// health is one host and what is wrong with it.
type health struct {
	Host     string             `json:"host"`
	Healthy  bool               `json:"healthy"`
	Usage    []ipam.Usage       `json:"usage"`
	Findings []diagnose.Finding `json:"findings"`
	View     view.Host          `json:"view"`
}

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show this node on one screen, and in words what is not well; status 2 if anything is not", Args: cobra.NoArgs,
		Example: "  l3ctl status\n  l3ctl status --from node1.json --from node2.json   # one line each\n  l3ctl status --all   # of a Kubernetes cluster",
	}
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		all, well := []health{}, true
		for _, h := range hs {
			if len(hs) > 1 && !diagnose.Ours(h) {
				continue // of many hosts, those that nothing of ours is on are left out
			}
			x := health{Host: h.Name, Findings: diagnose.Host(h), Usage: ipam.Count(h), View: h}
			x.Healthy = diagnose.Healthy(x.Findings)
			all, well = append(all, x), well && x.Healthy
		}
		if err := format.Print(cmd, all, func(w io.Writer) {
			if len(hs) == 1 && !where.All {
				screen(w, all[0], time.Now())
				return
			}
			table(w, all)
		}); err != nil || well {
			return err
		}
		return look.Unhealthy
	}
	return cmd
}

// screen is one node on one screen.
func screen(w io.Writer, x health, now time.Time) {
	h, r, p := x.View, x.View.Routed, x.View.Portald
	since := func(t time.Time) string { return now.Sub(t).Truncate(time.Second).String() }
	if h.Lost == "" {
		look.Say(w, "node\t%s, %s on %s", h.Name, known(h.Primary()), cmp.Or(h.Uplink(), "no uplink"))
	}
	if h.Partial != "" {
		look.Say(w, "view\t%s", h.Partial)
	}
	for _, u := range x.Usage {
		look.Say(w, "pods\t%s", u)
	}
	for _, n := range h.Networks {
		state := "not there yet: the first pod makes it"
		if b, ok := h.Link(n.Bridge); ok {
			state = map[bool]string{true: "up", false: "DOWN"}[b.Up]
			for _, a := range b.Addrs {
				if !a.Addr().IsLinkLocalUnicast() {
					state += ", " + a.String()
				}
			}
		}
		look.Say(w, "bridge\t%s %s, %d pods; network %s of %s", n.Bridge, state, living(h, n.Name), n.Name, n.File)
	}
	if r.Problem != "" {
		look.Say(w, "routed\t%s", r.Problem)
	} else {
		look.Say(w, "routed\tAS %d, router ID %s, up %s, %d routes installed, announces %s", r.ASN, known(r.RouterID), since(r.Since), len(r.Routes), announces(r))
	}
	for _, s := range r.Sessions {
		bfd := ""
		if s.BFD != "" {
			bfd = ", BFD " + s.BFD
		}
		look.Say(w, "session\t%s (AS %d) %s for %s, %d prefixes in, %d out%s", s.Peer, s.ASN, s.State, since(s.Since), s.In, s.Out, bfd)
	}
	if p.Problem != "" {
		look.Say(w, "portald\t%s", p.Problem)
	} else {
		force := "not in force yet"
		if !p.LastSync.IsZero() {
			force = "in force since " + p.LastSync.Format(time.DateTime)
		}
		look.Say(w, "portald\t%s, %d services with %d endpoints, %s", p.Mode, p.Services, p.Endpoints, force)
	}
	look.Say(w, "")
	look.Findings(w, x.Findings)
	switch {
	case len(x.Findings) == 0:
		look.Say(w, "all is well")
	case x.Healthy:
		look.Say(w, "nothing is broken")
	}
}

// table is many nodes, a line each, and below it what is wrong.
func table(w io.Writer, all []health) {
	look.Say(w, "HOST\tPODS\tUSED\tSESSIONS\tROUTES\tPORTALS\tHEALTH")
	for _, x := range all {
		h, up := x.View, 0
		if h.Lost != "" {
			look.Say(w, "%s\t-\t-\t-\t-\t-\tdoes not answer", h.Name)
			continue
		}
		for _, s := range h.Routed.Sessions {
			if s.Up() {
				up++
			}
		}
		used, portals := "-", "-"
		if len(x.Usage) > 0 {
			used = fmt.Sprintf("%d/%d", x.Usage[0].Used, x.Usage[0].Size)
		}
		if h.Portald.Problem == "" {
			portals = fmt.Sprintf("%d %s", len(h.Portald.Portals), h.Portald.Mode)
		}
		state := "well"
		if n := len(x.Findings); n > 0 {
			state = fmt.Sprintf("%s (and %d more)", x.Findings[0].Problem, n-1)
			if n == 1 {
				state = x.Findings[0].Problem
			}
		}
		look.Say(w, "%s\t%s\t%s\t%d/%d up\t%d\t%s\t%s", h.Name, cmp.Or(strings.Join(texts(h.PodSubnets()), " "), "-"), used, up, len(h.Routed.Sessions), len(h.Routed.Routes), portals, state)
	}
	for _, x := range all {
		if !x.Healthy {
			look.Say(w, "\n%s", x.Host)
			look.Findings(w, x.Findings)
		}
	}
}

func announces(r view.Routed) string {
	var out []string
	for _, a := range r.Announced {
		s := a.Prefix.String()
		if a.Leaving {
			s += " (leaving)"
		}
		out = append(out, s)
	}
	return cmp.Or(strings.Join(out, " "), "nothing")
}

func living(h view.Host, network string) int {
	n := 0
	for _, p := range h.Pods {
		if p.Alive && p.Network == network {
			n++
		}
	}
	return n
}

func texts[T fmt.Stringer](in []T) []string {
	var out []string
	for _, x := range in {
		out = append(out, x.String())
	}
	return out
}

func known(a netip.Addr) string {
	if a.IsValid() {
		return a.String()
	}
	return "-"
}
