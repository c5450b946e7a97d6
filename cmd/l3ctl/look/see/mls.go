// SPDX-License-Identifier: Apache-2.0

package see

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/diagnose"
	"github.com/l3edge/l3edge/pkg/core/mlsconf"
	"github.com/l3edge/l3edge/pkg/core/subnet"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// mlsFlags are the flags of mls-config as they were given.
type mlsFlags struct {
	s                         mlsconf.Switch
	vendor, routerID          string
	cluster, portal, password string
	segments, statics         []string
	hold, bfd                 time.Duration
	migration                 bool
}

func newMLSConfig() *cobra.Command {
	m := mlsFlags{s: mlsconf.Switch{ASN: 64512, NodeBits: 24, MaxNodes: 100, MaxPaths: 64, MaxIn: 8}, hold: 9 * time.Second}
	cmd := &cobra.Command{
		Use: "mls-config", Short: "Print the switch's side of the sessions: neighbours, filters, limits, timers, multipath", Args: cobra.NoArgs,
		Long: `Print the switch's side of the sessions: neighbours by range, prefix filters, limits, timers, BFD, MD5, multipath. With --migration
(or --static) also the order in which static routes are replaced by BGP without losing a packet.`,
		Example: `  l3ctl mls-config --vendor=frr --segment=10.20.30.1/24 --segment=192.168.10.1/24 --cluster=10.10.0.0/16
  l3ctl mls-config --vendor=eos --segment=10.20.30.1/24 --cluster=10.10.0.0/16 --portal-net=10.100.0.0/16 --bfd=300ms --static=10.10.10.0/24=10.20.30.62`,
	}
	f := cmd.Flags()
	f.StringVar(&m.vendor, "vendor", "frr", strings.Join(mlsconf.Vendors, ", "))
	look.Choose(cmd, "vendor", mlsconf.Vendors...)
	f.Uint32Var(&m.s.ASN, "asn", m.s.ASN, "the switch's AS number")
	f.Uint32Var(&m.s.NodeASN, "node-asn", 0, "the AS number of all nodes, where routed was given one (default: each has its own, made of its address)")
	f.StringVar(&m.routerID, "router-id", "", "the switch's BGP identifier, an `address` (default: its first)")
	f.StringArrayVar(&m.segments, "segment", nil, "the switch's own `address/length` in a network of nodes; repeatable")
	f.StringVar(&m.cluster, "cluster", "", "`prefix` of all pods")
	f.IntVar(&m.s.NodeBits, "node-bits", m.s.NodeBits, "length of a node's prefix in it")
	f.StringVar(&m.portal, "portal-net", "", "`prefix` of service addresses, if nodes announce it (default: they may not)")
	f.IntVar(&m.s.MaxNodes, "max-nodes", m.s.MaxNodes, "how many sessions the switch accepts")
	f.IntVar(&m.s.MaxPaths, "max-paths", m.s.MaxPaths, "how many equal ways the switch uses")
	f.IntVar(&m.s.MaxIn, "max-prefixes", m.s.MaxIn, "how many prefixes one node may announce")
	f.DurationVar(&m.hold, "hold-time", m.hold, "a silent node is down after this `time`")
	f.DurationVar(&m.bfd, "bfd", 0, "`time` between two BFD packets, as in routed --peer=...,bfd=TIME (default: no BFD)")
	f.StringVar(&m.password, "password-file", "", "`file` with the key for TCP MD5")
	f.StringArrayVar(&m.statics, "static", nil, "a static route to replace, `PREFIX=NODE`; repeatable")
	f.BoolVar(&m.migration, "migration", false, "also print how to come from static routes to BGP")
	format := look.Output(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, statics, err := m.parse()
		if err != nil {
			return err
		}
		text, err := mlsconf.Render(m.vendor, s)
		if err != nil {
			return err
		}
		steps := ""
		if m.migration || len(statics) > 0 {
			steps = mlsconf.Migrate(m.vendor, statics)
		}
		return format.Print(cmd, map[string]string{"vendor": m.vendor, "config": text, "migration": steps}, func(w io.Writer) {
			_, _ = io.WriteString(w, text)
			comment := "! "
			if m.vendor == "bird" || m.vendor == "junos" {
				comment = "# "
			}
			for line := range strings.Lines(steps) {
				_, _ = io.WriteString(w, comment+line)
			}
		})
	}
	return cmd
}

// parse makes the switch of the flags; what cannot be together is Validate's business.
func (m mlsFlags) parse() (mlsconf.Switch, []mlsconf.Static, error) {
	s := m.s
	var errs []error
	fail := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
		}
	}
	var err error
	for _, text := range m.segments {
		p, err := netip.ParsePrefix(text)
		if err != nil || !p.Addr().Is4() {
			fail("segment", fmt.Errorf("%q is not an IPv4 address with a length", text))
		}
		s.Segments = append(s.Segments, p)
	}
	if s.Cluster, err = subnet.Parse(m.cluster); m.cluster != "" {
		fail("cluster", err)
	}
	if s.Portal, err = subnet.Parse(m.portal); m.portal != "" {
		fail("portal-net", err)
	}
	if m.routerID != "" {
		s.RouterID, err = netip.ParseAddr(m.routerID)
		fail("router-id", err)
	} else if len(s.Segments) > 0 {
		s.RouterID = s.Segments[0].Addr()
	}
	if m.password != "" {
		text, err := os.ReadFile(m.password)
		fail("password-file", err)
		s.Password = strings.TrimSpace(string(text))
	}
	s.Hold, s.BFD = int(m.hold/time.Second), int(m.bfd/time.Millisecond)
	var statics []mlsconf.Static
	for _, text := range m.statics {
		prefix, via, _ := strings.Cut(text, "=")
		p, err1 := subnet.Parse(prefix)
		a, err2 := netip.ParseAddr(via)
		if err1 != nil || err2 != nil {
			fail("static", fmt.Errorf("%q is not PREFIX=NODE", text))
		}
		statics = append(statics, mlsconf.Static{Prefix: p, Via: a})
	}
	return s, statics, errors.Join(errs...)
}

func newMLSVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "mls-verify", Short: "Say what the live sessions, and the switch's table where it can be seen, show to be wrong; status 2 if anything is", Args: cobra.NoArgs,
		Example: "  l3ctl mls-verify\n  l3ctl mls-verify --from node1.json --from node2.json --from switch.json",
	}
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		nodes, mls := part(hs)
		found := diagnose.Switch(nodes, mls)
		if err := format.Print(cmd, found, func(w io.Writer) {
			look.Findings(w, found)
			if len(found) == 0 {
				look.Say(w, "%d nodes agree with the switch: sessions, filters and timers are as they should be", len(nodes))
			}
			if mls == nil {
				look.Say(w, "(only what nodes see; with l3ctl observe run on the switch, or --lab, its table is compared too)")
			}
		}); err != nil || len(found) == 0 {
			return err
		}
		return look.Unhealthy
	}
	return cmd
}

// part tells nodes and the switch apart: the switch runs no pods and routes to those of others.
func part(hs []view.Host) (nodes []view.Host, mls *view.Host) {
	for i, h := range hs {
		switch {
		case diagnose.RunsPods(h):
			nodes = append(nodes, h)
		case isSwitch(h, hs):
			mls = &hs[i]
		}
	}
	return nodes, mls
}

// isSwitch reports that h holds an address that a node's default route or session leads to.
func isSwitch(h view.Host, all []view.Host) bool {
	for _, n := range all {
		for _, s := range n.Routed.Sessions {
			if _, own := h.Own(s.Address); own && diagnose.RunsPods(n) {
				return true
			}
		}
	}
	return false
}
