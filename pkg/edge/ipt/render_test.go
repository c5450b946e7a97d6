// SPDX-License-Identifier: Apache-2.0

package ipt

import (
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

var update = flag.Bool("update", false, "rewrite testdata")

// want is one portal of a test table: service, what clients dial, proxy port.
type want struct {
	service, key string
	port         uint16
}

// article is the listing of kubminion1 in the article.
var article = []want{
	{"default/kubernetes", "TCP 10.100.0.2:443", 60239},
	{"default/kubernetes-ro", "TCP 10.100.0.1:80", 59619},
	{"default/webfrontend", "TCP 10.100.87.105:80", 39770},
}

var node = netip.MustParseAddr("10.20.30.62")

func tables(wants ...want) (portal.Table, map[portal.Key]uint16) {
	t, ports := portal.Table{Portals: map[portal.Key]portal.Portal{}}, map[portal.Key]uint16{}
	for _, w := range wants {
		proto, addr, _ := strings.Cut(w.key, " ")
		ap := netip.MustParseAddrPort(addr)
		key := portal.Key{Addr: ap.Addr(), Port: ap.Port(), Protocol: map[string]service.Protocol{"TCP": service.TCP, "UDP": service.UDP}[proto]}
		name, port, _ := strings.Cut(w.service, ":")
		ns, name, _ := strings.Cut(name, "/")
		kind := portal.ClusterIP
		if key.Port >= 30000 {
			kind = portal.NodePort
		}
		t.Portals[key] = portal.Portal{Kind: kind, Service: service.PortName{Name: service.Name{Namespace: ns, Name: name}, Port: port}}
		if w.port != 0 {
			ports[key] = w.port
		}
	}
	return t, ports
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func TestRender(t *testing.T) {
	other := []want{
		{"kube-system/dns:dns", "UDP 10.100.0.10:53", 40001},
		{"kube-system/dns:dns-tcp", "TCP 10.100.0.10:53", 40002},
		{"default/six", "TCP [fd00:100::5]:80", 40003},
		{"default/no-port-yet", "TCP 10.100.0.11:80", 0},
		{"default/by-node:http", "TCP 10.20.30.62:30080", 40005},
		{"odd/na\"me\n-j ACCEPT", "TCP 10.100.0.12:80", 40004},
	}
	for _, tt := range []struct {
		golden string
		node   netip.Addr
		wants  []want
	}{
		{"article.rules", node, article},
		{"other4.rules", node, other},
		{"other6.rules", netip.MustParseAddr("fd00:20::62"), other},
	} {
		tab, ports := tables(tt.wants...)
		golden(t, tt.golden, plan(Render(tab, ports, tt.node), state{}))
	}
}

func TestPlanChangesOnlyWhatDiffers(t *testing.T) {
	tab, ports := tables(article...)
	rules := Render(tab, ports, node)
	right := func() state {
		return state{
			chains: maps.Clone(rules),
			jumps:  map[string]int{"KUBE-PORTALS-CONTAINER": 1, "KUBE-PORTALS-HOST": 1},
		}
	}
	stray := split(`-s 10.0.0.0/8 -j ACCEPT`)
	moved := split(`-d 10.100.87.105/32 -p tcp -m comment --comment "webfrontend" -m tcp --dport 80 -j REDIRECT --to-ports 1`)
	for _, tt := range []struct {
		name string
		have func() state
		want string
	}{
		{"nothing when all is right", right, ""},
		{"nothing when only the order differs", func() state {
			s := right()
			s.chains["KUBE-PORTALS-HOST"] = []Rule{rules["KUBE-PORTALS-HOST"][2], rules["KUBE-PORTALS-HOST"][0], rules["KUBE-PORTALS-HOST"][1]}
			return s
		}, ""},
		{"a lost jump comes back, first", func() state { s := right(); s.jumps["KUBE-PORTALS-HOST"] = 0; return s },
			"-I OUTPUT 1 -j KUBE-PORTALS-HOST\n"},
		{"a doubled jump goes", func() state { s := right(); s.jumps["KUBE-PORTALS-CONTAINER"] = 2; return s },
			"-D PREROUTING -j KUBE-PORTALS-CONTAINER\n"},
		{"a stray and a doubled rule go", func() state {
			s := right()
			s.chains["KUBE-PORTALS-HOST"] = append([]Rule{stray, rules["KUBE-PORTALS-HOST"][1]}, rules["KUBE-PORTALS-HOST"]...)
			return s
		}, "-D KUBE-PORTALS-HOST -s 10.0.0.0/8 -j ACCEPT\n-D KUBE-PORTALS-HOST " + rules["KUBE-PORTALS-HOST"][1].String() + "\n"},
		{"a moved port is replaced in one commit", func() state {
			s := right()
			s.chains["KUBE-PORTALS-CONTAINER"] = []Rule{rules["KUBE-PORTALS-CONTAINER"][0], rules["KUBE-PORTALS-CONTAINER"][1], moved}
			return s
		}, "-D KUBE-PORTALS-CONTAINER " + moved.String() + "\n-A KUBE-PORTALS-CONTAINER " + rules["KUBE-PORTALS-CONTAINER"][2].String() + "\n"},
		{"the chains of NodePorts go with the last of them", func() state {
			s := right()
			s.chains["KUBE-NODEPORT-HOST"] = []Rule{stray}
			s.jumps["KUBE-NODEPORT-HOST"] = 1
			return s
		}, "-D OUTPUT " + toNode.String() + " -j KUBE-NODEPORT-HOST\n-F KUBE-NODEPORT-HOST\n-X KUBE-NODEPORT-HOST\n"},
	} {
		want := tt.want
		if want != "" {
			want = "*nat\n" + want + "COMMIT\n"
		}
		if d := cmp.Diff(want, plan(rules, tt.have())); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func FuzzSplitUndoesQuote(f *testing.F) {
	f.Add("webfrontend", "ns/name:port")
	f.Add(`a "quoted" \ thing`, "")
	f.Fuzz(func(t *testing.T, a, b string) {
		r := Rule{a, b, "end"}
		if d := cmp.Diff(r, split(r.String())); d != "" && strings.ToValidUTF8(a+b, "") == a+b {
			t.Errorf("%q: (-want +got):\n%s", r, d)
		}
	})
}
