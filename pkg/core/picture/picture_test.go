// SPDX-License-Identifier: Apache-2.0

package picture

import (
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/core/walk"
)

var update = flag.Bool("update", false, "write the golden files anew")

// world is n nodes on two segments, with pods on each, a switch, and a host without pods.
func world(n, pods int) walk.World {
	a := func(b0, b1, b2, b3 int) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(b0), byte(b1), byte(b2), byte(b3)})
	}
	mls := view.Host{Name: "mls", Routed: view.Routed{ASN: 64512}, Portald: view.Portald{Problem: "x"}, Links: []view.Link{
		{Name: "br20", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.20.30.1/24")}}, {Name: "br192", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.10.1/24")}},
	}}
	web := view.Portal{VIP: a(10, 100, 87, 105), Protocol: "TCP", Port: 80, Service: "default/webfrontend", Mode: "nftables"}
	w := walk.World{mls}
	for i := 1; i <= n; i++ {
		own, gw := a(10, 20, 30, 61+i), a(10, 20, 30, 1)
		if i > n/2 {
			own, gw = a(192, 168, 10, 61+i), a(192, 168, 10, 1)
		}
		subnet := netip.PrefixFrom(a(10, 10, i*10%250, 0), 24)
		h := view.Host{
			Name: fmt.Sprintf("kubminion%d", i), Node: &node.Node{Name: "x", Addresses: []netip.Addr{own}, PodSubnets: []netip.Prefix{subnet}, Uplink: "ens18"},
			Routed:   view.Routed{Sessions: []view.Session{{Peer: "mls", Address: gw, State: "established", In: uint64(n - 1), Out: 1}}},
			Networks: []view.Network{{Name: "l3edge", Bridge: "docker0"}},
			Links:    []view.Link{{Name: "ens18", Addrs: []netip.Prefix{netip.PrefixFrom(own, 24)}}, {Name: "docker0", Kind: "bridge", Addrs: []netip.Prefix{netip.PrefixFrom(subnet.Addr().Next(), 24)}}},
			Routes:   []view.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: gw, Dev: "ens18"}},
		}
		if i == 2 {
			h.Routed.Sessions[0].State = "connecting"
		}
		for p := 2; p < 2+pods; p++ {
			ip := a(10, 10, i*10%250, p)
			h.Pods = append(h.Pods, view.Pod{Name: fmt.Sprintf("default/web-controller-%d-%d-x7k2p", i, p), Alive: true, Addrs: []netip.Addr{ip}, Processes: []view.Process{{Name: "pause"}, {Name: "web8080"}, {Name: "a-rather-long-sidecar"}}})
			if p == 2 {
				web.Endpoints = append(web.Endpoints, netip.AddrPortFrom(ip, 8080))
			}
		}
		w = append(w, h)
	}
	w[1].Portald.Portals = []view.Portal{web, {VIP: a(10, 100, 0, 1), Protocol: "TCP", Port: 443, Service: "default/kubernetes", Mode: "nftables"}}
	return append(w, view.Host{Name: "kubmasta", Links: []view.Link{{Name: "ens18", Addrs: []netip.Prefix{netip.MustParsePrefix("10.20.30.61/24")}}},
		Routes: []view.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: a(10, 20, 30, 1), Dev: "ens18"}}})
}

func TestPictures(t *testing.T) {
	p := Of(world(4, 2))
	for file, got := range map[string]string{"4.txt": p.Text(), "4.dot": p.DOT(), "4.mmd": p.Mermaid(), "4.svg": p.SVG(), "40.svg": Of(world(40, 7)).SVG()} {
		golden := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
}

// No label lies on another, none leaves the drawing, boxes stay apart or lie wholly in each other, and it fits a page.
func TestNothingOverlaps(t *testing.T) {
	for _, row := range []struct{ nodes, pods int }{{1, 0}, {4, 1}, {4, 12}, {13, 3}, {40, 7}, {40, 1}} {
		d := Of(world(row.nodes, row.pods)).layout()
		name := fmt.Sprintf("%d nodes with %d pods", row.nodes, row.pods)
		for i, a := range d.shapes {
			if a.kind == "text" && (a.x < 0 || a.x+a.w > d.width || a.y > d.height) {
				t.Errorf("%s: %q leaves the drawing", name, a.say)
			}
			for _, b := range d.shapes[:i] {
				if a.kind == "text" && b.kind == "text" && a.x < b.x+b.w && b.x < a.x+a.w && a.y-a.h < b.y && b.y-b.h < a.y {
					t.Errorf("%s: %q lies on %q", name, a.say, b.say)
				}
				if a.kind == "rect" && b.kind == "rect" && a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h &&
					(a.x < b.x || a.x+a.w > b.x+b.w || a.y < b.y || a.y+a.h > b.y+b.h) {
					t.Errorf("%s: a %s crosses a %s", name, a.class, b.class)
				}
			}
		}
		if d.width > 1700 || d.height > 2.2*d.width {
			t.Errorf("%s: %.0f x %.0f is more than a page", name, d.width, d.height)
		}
	}
}

func TestSVGIsXML(t *testing.T) {
	p := Of(world(4, 1))
	p.Switch.Name = `<mls> & "co"`
	d := xml.NewDecoder(strings.NewReader(p.SVG()))
	for {
		if _, err := d.Token(); err == io.EOF { //nolint:errorlint // the decoder's own
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneNodeDrawsWhatItKnows(t *testing.T) {
	h := world(4, 1)[1]
	h.Routed.Routes = []view.RoutedRoute{{Prefix: netip.MustParsePrefix("10.10.20.0/24"), Via: []netip.Addr{netip.MustParseAddr("10.20.30.63")}}}
	got := Of(walk.World{h}).Text()
	for _, want := range []string{"mls  (AS 0, as kubminion1 sees it)", "known by routes only", "a node not seen  10.20.30.63", "pods 10.10.20.0/24"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}
