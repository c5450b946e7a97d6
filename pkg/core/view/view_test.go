// SPDX-License-Identifier: Apache-2.0

package view

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/node"
)

func TestParseNetwork(t *testing.T) {
	for _, row := range []struct {
		what, text string
		want       string // bridge and subnets
		ok         bool
	}{
		{"the sample", `{"name":"l3edge","plugins":[{"type":"bridge-l3"},{"type":"portal"}]}`, "cni0 []", true},
		{"a subnet of its own", `{"name":"n","plugins":[{"type":"bridge-l3","bridge":"docker0","subnet":"10.10.10.0/24"}]}`, "docker0 [10.10.10.0/24]", true},
		{"host-local's block", `{"name":"n","plugins":[{"type":"bridge-l3","ipam":{"type":"host-local","ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00::/64"}]]}}]}`, "cni0 [10.10.10.0/24 fd00::/64]", true},
		{"two ranges of one subnet", `{"name":"n","plugins":[{"type":"bridge-l3","ipam":{"type":"host-local","ranges":[[{"subnet":"10.10.10.0/24","rangeEnd":"10.10.10.9"},{"subnet":"10.10.10.0/24","rangeStart":"10.10.10.20"}]]}}]}`, "cni0 [10.10.10.0/24]", true},
		{"somebody else's", `{"name":"n","plugins":[{"type":"ptp"}]}`, " []", false},
	} {
		t.Run(row.what, func(t *testing.T) {
			n, ok, err := ParseNetwork("10-x.conflist", []byte(row.text))
			got := n.Bridge + " " + prefixes(n.Subnets)
			if err != nil || ok != row.ok || got != row.want {
				t.Errorf("got %q %t %v, want %q", got, ok, err, row.want)
			}
		})
	}
	if _, _, err := ParseNetwork("10-x.conflist", []byte("{")); err == nil {
		t.Error("half a file is read")
	}
}

func prefixes(ps []netip.Prefix) string {
	s := "["
	for i, p := range ps {
		if i > 0 {
			s += " "
		}
		s += p.String()
	}
	return s + "]"
}

func TestParseAttachment(t *testing.T) {
	p, ok, err := ParseAttachment([]byte(`{"kind":"cniCacheV1","containerId":"0a1b","ifName":"eth0","networkName":"l3edge","netns":"/run/netns/x",
"cniArgs":[["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","web"]],"capabilityArgs":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]},
"result":{"interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/x"}],"ips":[{"address":"10.10.10.2/24","interface":2}]}}`))
	if err != nil || !ok {
		t.Fatalf("%t %v", ok, err)
	}
	if p.Short() != "web" || p.Veth != "veth1" || !slices.Equal(p.Addrs, []netip.Addr{netip.MustParseAddr("10.10.10.2")}) || p.HostPorts[0].String() != "tcp 80 -> 8080" {
		t.Errorf("got %+v", p)
	}
	if _, ok, err := ParseAttachment([]byte(`{"kind":"other"}`)); ok || err != nil {
		t.Errorf("another kind: %t %v", ok, err)
	}
}

// A route without a gateway goes by the one of its family's address: the plugins make it so.
func TestRoutesOfAnAttachment(t *testing.T) {
	p, _, err := ParseAttachment([]byte(`{"kind":"cniCacheV1","containerId":"0a1b","ifName":"eth0","networkName":"l3edge","result":{
"ips":[{"address":"10.10.10.2/24","gateway":"10.10.10.1"},{"address":"fd00::2/64"}],
"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.20.0.1/16","gw":"10.10.10.9"},{"dst":"10.30.0.0/16","table":254},{"dst":"fd01::/16"},{"dst":"10.40.0.0/16","table":7}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range p.Want.Routes {
		got = append(got, r.String())
	}
	want := []string{"default via 10.10.10.1", "10.20.0.0/16 via 10.10.10.9", "10.30.0.0/16 via 10.10.10.1", "fd01::/16"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLookup(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	h := Host{
		Node: &node.Node{Uplink: "ens18"},
		Routes: []Route{
			{Dst: p("0.0.0.0/0"), Via: a("10.20.30.1"), Dev: "ens18"},
			{Dst: p("10.10.0.0/16"), Type: "unreachable", Metric: 2000},
			{Dst: p("10.10.20.0/24"), Via: a("10.20.30.99"), Dev: "ens18", Metric: 200},
			{Dst: p("10.10.20.0/24"), Via: a("10.20.30.63"), Dev: "ens18", Metric: 100},
		},
	}
	for to, want := range map[string]string{
		"10.10.20.2": "10.10.20.0/24 via 10.20.30.63 dev ens18",
		"10.10.77.2": "unreachable 10.10.0.0/16",
		"8.8.8.8":    "default via 10.20.30.1 dev ens18",
	} {
		if r, ok := h.Lookup(a(to)); !ok || r.String() != want {
			t.Errorf("to %s: %s %t, want %s", to, r, ok, want)
		}
	}
	if _, ok := h.Lookup(a("fd00::1")); ok {
		t.Error("there is a route for IPv6")
	}
}
