// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

func TestKernelPortal(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	w.pod(w.client, "self", "10.10.10.2:8080")
	p := w.start("--resync=200ms")
	p.synced("the first sync", func(r portals.Report) bool { return len(r.Portals) == 1 })
	endpoint := func(addr string) {
		t.Helper()
		w.write("web.yaml", webfrontend(addr))
		p.synced("endpoint "+addr, func(r portals.Report) bool {
			return len(r.Portals[0].Endpoints) == 1 && r.Portals[0].Endpoints[0].String() == addr+":8080"
		})
	}

	t.Run("one connection: the pod sees the client", func(t *testing.T) {
		if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
			t.Errorf("from a pod: %q", got)
		}
		if got := w.curl(w.node, vip); got != "far saw 10.20.30.62" {
			t.Errorf("from the node: %q", got)
		}
	})
	t.Run("the same when both are on one bridge", func(t *testing.T) {
		endpoint("10.10.10.3")
		if got := w.curl(w.client, vip); got != "near saw 10.10.10.2" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a pod that is balanced to itself answers", func(t *testing.T) {
		endpoint("10.10.10.2")
		if got := w.curl(w.client, vip); !strings.HasPrefix(got, "self saw ") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("without endpoints, and for addresses that no service has, refused", func(t *testing.T) {
		w.write("web.yaml", webfrontend())
		p.synced("no endpoints", func(r portals.Report) bool { return len(r.Portals[0].Endpoints) == 0 })
		for _, from := range []*netns.Handle{w.client, w.node} {
			for _, addr := range []string{vip, "10.100.87.105:81", "10.100.99.99:80"} {
				if got := w.curl(from, addr); !strings.Contains(got, "refused") && !strings.Contains(got, "unreachable") {
					t.Errorf("%s: %q", addr, got)
				}
			}
		}
	})
	t.Run("a service may be answered by the proxy", func(t *testing.T) {
		w.write("web.yaml", strings.Replace(webfrontend("10.10.20.4"), "{name: webfrontend}\nspec", "{name: webfrontend, annotations: {l3edge.dev/mode: userspace}}\nspec", 1))
		p.synced("userspace", func(r portals.Report) bool {
			return r.Portals[0].Mode == portals.Userspace && r.Portals[0].ProxyPort != 0
		})
		if got := w.curl(w.client, vip); got != "far saw 10.20.30.62" {
			t.Errorf("by the proxy: %q", got)
		}
		endpoint("10.10.20.4")
		p.synced("nftables", func(r portals.Report) bool { return r.Portals[0].Mode == portals.NFTables })
		if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
			t.Errorf("by the kernel again: %q", got)
		}
		if save := nstest.Run(t, w.node, "iptables-save"); strings.Contains(save, "KUBE") {
			t.Errorf("iptables rules are left:\n%s", save)
		}
	})
	t.Run("what others flush comes back", func(t *testing.T) {
		nstest.Run(t, w.node, "nft", "delete", "table", "ip", "l3edge")
		eventually(t, "the table", func() bool { return w.curl(w.client, vip) == "far saw 10.10.10.2" })
	})
	t.Run("the node needs no default route", func(t *testing.T) {
		nstest.Run(t, w.node, "ip", "route", "del", "default")
		nstest.Run(t, w.node, "ip", "route", "add", "10.10.20.0/24", "via", "10.20.30.63")
		eventually(t, "an answer to the node", func() bool { return w.curl(w.node, vip) == "far saw 10.20.30.62" })
	})
	t.Run("it goes on without portald", func(t *testing.T) {
		p.stop()
		if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("switching to userspace leaves the kernel nothing but to refuse what nobody has", func(t *testing.T) {
		p := w.start("--mode=userspace")
		p.synced("userspace", func(r portals.Report) bool { return r.Mode == portals.Userspace })
		if got := w.curl(w.client, vip); got != "far saw 10.20.30.62" {
			t.Errorf("got %q", got)
		}
		if table := nstest.Run(t, w.node, "nft", "list", "table", "ip", "l3edge"); strings.Contains(table, "10.100.87.105") || !strings.Contains(table, "elements = { 10.100.0.0/16 }") {
			t.Errorf("left: %s", table)
		}
		p.stop()
	})
	t.Run("once programs and goes, and removes the proxy's rules", func(t *testing.T) {
		nstest.Do(t, w.node, func() error { return run(t.Context(), w.args("--once"), os.Stdout, os.Stderr) })
		if got := w.curl(w.client, vip); got != "far saw 10.10.10.2" {
			t.Errorf("got %q", got)
		}
		if save := nstest.Run(t, w.node, "iptables-save"); strings.Contains(save, "KUBE") {
			t.Errorf("iptables rules are left:\n%s", save)
		}
	})
	t.Run("cleanup removes everything", func(t *testing.T) {
		nstest.Do(t, w.node, func() error { return run(t.Context(), w.args("--cleanup"), os.Stdout, os.Stderr) })
		if tables := nstest.Run(t, w.node, "nft", "list", "tables"); strings.Contains(tables, "l3edge") {
			t.Errorf("left: %s", tables)
		}
		if routes := nstest.Run(t, w.node, "ip", "route"); strings.Contains(routes, "10.100") {
			t.Errorf("left: %s", routes)
		}
	})
}
