// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"fmt"
	"strings"
)

// RoutedArgs are the arguments that make our own routed the switch: it listens for the nodes and needs no list of them.
func (t Topology) RoutedArgs() []string {
	args := []string{fmt.Sprintf("--asn=%d", MLSASN), "--accept=10.10.0.0/16"}
	for _, s := range t.Segments {
		if s.Nodes {
			args = append(args, "--listen-range="+s.Addr.Masked().String())
		}
	}
	return args
}

// FRRConfig is bgpd.conf of the switch: neighbours by range, whatever their AS; no network, no static route.
func (t Topology) FRRConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, `hostname %s
router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as external
`, MLSName, MLSASN, t.Segments[0].Addr.Addr())
	for _, s := range t.Segments {
		if s.Nodes {
			fmt.Fprintf(&b, " bgp listen range %s peer-group NODES\n", s.Addr.Masked())
		}
	}
	return b.String()
}

// BIRDConfig is the same for BIRD 2.
func (t Topology) BIRDConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, `router id %s;
protocol device { }
protocol direct { ipv4; }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
`, t.Segments[0].Addr.Addr())
	for _, s := range t.Segments {
		if s.Nodes {
			fmt.Fprintf(&b, `protocol bgp %s {
  local %s as %d;
  neighbor range %s external;
  dynamic name "%s_node";
  ipv4 { import where net ~ [ 10.10.0.0/16{24,24} ]; export where source = RTS_BGP; };
}
`, s.Bridge, s.Addr.Addr(), MLSASN, s.Addr.Masked(), s.Bridge)
		}
	}
	return b.String()
}
