// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { nstest.Main(m) }

func options() portal.Options {
	return portal.Options{
		Node: node.Node{
			Name:       "kubminion1",
			PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24"), netip.MustParsePrefix("fd00:10:10::/64")},
			Addresses:  []netip.Addr{netip.MustParseAddr("10.20.30.62"), netip.MustParseAddr("fd00:20::62")},
		},
		Nets: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("fd00:100::/112")},
	}
}

// snapshot builds services; every endpoint is ready.
type snapshot service.Snapshot

func newSnapshot() snapshot {
	return snapshot{Services: map[service.Name]service.Service{}, Endpoints: map[service.PortName][]service.Endpoint{}}
}

func (s snapshot) add(svc service.Service, name string, endpoints ...string) snapshot {
	svc.Name = service.Name{Namespace: "default", Name: name}
	s.Services[svc.Name] = svc
	for _, p := range svc.Ports {
		for _, e := range endpoints {
			pn := service.PortName{Name: svc.Name, Port: p.Name}
			s.Endpoints[pn] = append(s.Endpoints[pn], service.Endpoint{Addr: netip.MustParseAddrPort(e), Ready: true, Serving: true})
		}
	}
	return s
}

func (s snapshot) table(o portal.Options) portal.Table { return portal.Compute(service.Snapshot(s), o) }

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func tcp(ports ...uint16) []service.Port {
	p := service.Port{Protocol: service.TCP, Port: ports[0]}
	if len(ports) > 1 {
		p.NodePort = ports[1]
	}
	return []service.Port{p}
}

// full has a portal of every sort.
func full() portal.Table {
	return newSnapshot().
		add(service.Service{ClusterIPs: addrs("10.100.87.105"), Ports: tcp(80)}, "webfrontend", "10.10.10.2:8080", "10.10.20.2:8080", "10.10.30.2:8080").
		add(service.Service{ClusterIPs: addrs("10.100.0.10", "fd00:100::10"), Ports: []service.Port{{Protocol: service.UDP, Port: 53}}}, "dns", "10.10.20.5:53", "[fd00:10:10::5]:53").
		add(service.Service{ClusterIPs: addrs("10.100.0.30"), Ports: tcp(80)}, "empty").
		add(service.Service{ClusterIPs: addrs("10.100.0.31"), LoadBalancers: addrs("198.51.100.1"), Ports: tcp(443, 30443), ExternalPolicy: service.Local,
			SourceRanges: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}, "shop", "10.10.10.3:443", "10.10.20.3:443").
		add(service.Service{ClusterIPs: addrs("10.100.0.32", "fd00:100::32"), Ports: tcp(80), Affinity: 3 * time.Hour}, "sticky", "10.10.10.2:8080", "10.10.20.2:8080", "[fd00:10:10::5]:8080").
		add(service.Service{ExternalIPs: addrs("192.0.2.1"), Ports: tcp(25), ExternalPolicy: service.Local}, "away", "10.10.20.4:25").
		table(options())
}

func plane(t testing.TB, h *netns.Handle) *DataPlane {
	t.Helper()
	var d *DataPlane
	nstest.Do(t, h, func() (err error) {
		d, err = New()
		return err
	})
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func apply(t testing.TB, d *DataPlane, tab portal.Table) {
	t.Helper()
	if err := d.Apply(t.Context(), tab); err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
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

func TestRender(t *testing.T) { golden(t, "full.nft", Render(full())) }

var comment = regexp.MustCompile(` comment "l3edge [0-9a-f]{8}"`)

// normal brings Render's text and nft's listing to one form: sets compared as sets, in a line for each.
func normal(s string) []string {
	s = comment.ReplaceAllString(s, "")
	s = strings.NewReplacer(
		"meta l4proto tcp reject", "reject", ",\n", ", ", "priority dstnat;", "priority -100;", "priority srcnat;", "priority 100;", "priority filter;", "priority 0;",
		" https", " 443", "10.100.0.0/16", "10.100.0.0-10.100.255.255", "10.10.10.0/24", "10.10.10.0-10.10.10.255",
		"10.20.30.62-10.20.30.62", "10.20.30.62", "203.0.113.0/24", "203.0.113.0-203.0.113.255",
		"fd00:100::/112", "fd00:100::-fd00:100::ffff", "fd00:10:10::/64", "fd00:10:10::-fd00:10:10:0:ffff:ffff:ffff:ffff", "fd00:20::62-fd00:20::62", "fd00:20::62",
	).Replace(s)
	var out []string
	where := ""
	for _, l := range strings.Split(s, "\n") {
		l = strings.Join(strings.Fields(l), " ")
		switch {
		case strings.HasSuffix(l, "{"):
			where = strings.TrimSuffix(l, " {")
		case l == "" || l == "}":
			continue
		case strings.HasPrefix(l, "elements = {"):
			for _, e := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(l, "elements = { "), " }"), ", ") {
				out = append(out, where+": "+strings.TrimSpace(e))
			}
			continue
		}
		out = append(out, where+": "+l)
	}
	return out
}

// What the kernel lists after Apply is what Render promised, and nft 1.0.6 can list it.
func TestTheKernelListsWhatRenderSays(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	apply(t, d, full())
	want, got := normal(Render(full())), normal(nstest.Run(t, h, "nft", "list", "ruleset"))
	sort := cmp.Transformer("sort", func(s []string) map[string]int {
		m := map[string]int{}
		for _, l := range s {
			m[l]++
		}
		return m
	})
	if d := cmp.Diff(want, got, sort); d != "" {
		t.Errorf("(-Render +kernel):\n%s", d)
	}
}
