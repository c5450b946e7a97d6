// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// nodePort makes webfrontend one of type NodePort.
func nodePort(manifest string) string {
	return strings.Replace(manifest, "ports: [{port: 80, targetPort: 8080}]", "type: NodePort\n  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]", 1)
}

// Without a node file the node answers NodePorts on its uplink's address, to clients elsewhere too, and says what it lacks.
func TestNodePortsWithoutANodeFile(t *testing.T) {
	for _, mode := range []string{"nftables", "userspace"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			if err := os.Remove(filepath.Join(w.run, "node.json")); err != nil {
				t.Fatal(err)
			}
			w.write("web.yaml", nodePort(webfrontend("10.10.20.4")))
			w.pod(w.other, "far", "10.10.20.4:8080")
			p := w.start("--mode=" + mode)
			r := p.synced("the portals", func(r portals.Report) bool { return len(r.Portals) == 2 })
			if got := w.curl(w.other, "10.20.30.62:30080"); got != "far saw 10.20.30.62" {
				t.Errorf("from elsewhere: %q", got)
			}
			if len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "pod subnets are unknown") {
				t.Errorf("problems: %q", r.Problems)
			}
			p.stop()
		})
	}
}

func TestNodePortsOnLocalhost(t *testing.T) {
	for _, mode := range []string{"nftables", "userspace"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			w.write("web.yaml", nodePort(webfrontend("10.10.20.4")))
			w.pod(w.other, "far", "10.10.20.4:8080")
			p := w.start("--mode="+mode, "--localhost-nodeports")
			p.synced("the portals", func(r portals.Report) bool { return len(r.Portals) == 3 && len(r.Problems) == 0 })
			for _, to := range []string{"127.0.0.1:30080", "10.20.30.62:30080"} {
				if got := w.curl(w.node, to); got != "far saw 10.20.30.62" {
					t.Errorf("the node itself at %s: %q", to, got)
				}
			}
			p.stop()
			nstest.Do(t, w.node, func() error {
				return run(t.Context(), w.args("--cleanup", "--localhost-nodeports"), os.Stdout, os.Stderr)
			})
			if got := nstest.Run(t, w.node, "cat", "/proc/sys/net/ipv4/conf/all/route_localnet"); got != "0\n" {
				t.Errorf("route_localnet after --cleanup: %s", got)
			}
		})
	}
}

func TestNodePortAddresses(t *testing.T) {
	w := newWorld(t)
	nstest.Sh(t, w.node, "ip addr add 10.99.0.1/32 dev ens18")
	nstest.Sh(t, w.other, "ip route add 10.99.0.0/24 via 10.20.30.62")
	w.write("web.yaml", nodePort(webfrontend("10.10.20.4")))
	w.pod(w.other, "far", "10.10.20.4:8080")
	p := w.start("--nodeport-addresses=10.99.0.0/24")
	p.synced("the portals", func(r portals.Report) bool { return len(r.Portals) == 2 })
	if got := w.curl(w.other, "10.99.0.1:30080"); got != "far saw 10.20.30.62" {
		t.Errorf("the address that was chosen: %q", got)
	}
	if got := w.curl(w.other, "10.20.30.62:30080"); !strings.Contains(got, "refused") {
		t.Errorf("the first, which was not: %q", got)
	}
	nstest.Sh(t, w.node, "ip addr add 10.99.0.2/32 dev ens18")
	p.synced("a new address", func(r portals.Report) bool { return len(r.Portals) == 3 })
	if got := w.curl(w.other, "10.99.0.2:30080"); got != "far saw 10.20.30.62" {
		t.Errorf("the new address: %q", got)
	}
	p.stop()
}
