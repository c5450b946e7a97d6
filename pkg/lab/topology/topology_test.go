// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/service"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestRenderedFiles(t *testing.T) {
	article := Article()
	web := ArticleServices()[2]
	web.Endpoints = []Endpoint{
		{Addr: netip.MustParseAddr("10.10.10.2"), Node: "kubminion1"},
		{Addr: netip.MustParseAddr("10.10.30.2"), Node: "kubminion3"},
	}
	for file, got := range map[string]string{
		"hosts.kubminion3":       article.HostsFile("kubminion3"),
		"10-l3edge.conflist":     article.Nodes()[0].Conflist(),
		"webfrontend.yaml":       web.Manifest(),
		"webfrontend-empty.yaml": ArticleServices()[2].Manifest(),
		"bgpd.conf":              article.FRRConfig(),
		"bird.conf":              article.BIRDConfig(),
		"routed.args":            strings.Join(article.RoutedArgs(), "\n") + "\n",
	} {
		t.Run(file, func(t *testing.T) {
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
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestTheSwitchHasNoStaticRoute(t *testing.T) {
	article := Article()
	for name, conf := range map[string]string{"frr": article.FRRConfig(), "bird": article.BIRDConfig()} {
		for _, node := range article.Nodes() {
			if strings.Contains(conf, node.Pods.String()) || strings.Contains(conf, node.Addr.Addr().String()+" ") {
				t.Errorf("the %s configuration knows %s, which it must learn", name, node.Name)
			}
		}
		if strings.Contains(conf, "10.100.") {
			t.Errorf("the %s configuration knows the portal net", name)
		}
	}
}

func TestEveryHostIsOnASegment(t *testing.T) {
	article := Article()
	seen := map[string]bool{}
	for _, h := range article.Hosts {
		seen[article.SegmentOf(h).Bridge] = true
	}
	if len(seen) != len(article.Segments) {
		t.Errorf("hosts on segments %v of %v", seen, article.Segments)
	}
}

func TestContainersLearnOfServices(t *testing.T) {
	env := strings.Join(service.Env(Snapshot(ArticleServices()), "default"), "\n")
	for _, want := range []string{"WEBFRONTEND_SERVICE_HOST=10.100.87.105", "WEBFRONTEND_SERVICE_PORT=80", "KUBERNETES_RO_SERVICE_HOST=10.100.0.1"} {
		if !strings.Contains(env+"\n", want+"\n") {
			t.Errorf("%s is not in\n%s", want, env)
		}
	}
}
