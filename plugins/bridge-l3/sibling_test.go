// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestARenamedNetworkGivesItsAddressesBack: its pods are deleted under the new name, with a result or without, or not at all.
func TestARenamedNetworkGivesItsAddressesBack(t *testing.T) {
	const one = `"subnet":"10.0.0.0/30"` // one pod
	age := func(l *lab) {
		t.Helper()
		long := time.Now().Add(-2 * forgotten)
		if err := os.Chtimes(filepath.Join(l.leases, "net", "by-owner", "a@eth0"), long, long); err != nil {
			t.Fatal(err)
		}
	}
	unlink := func(l *lab, p *pod) { nstest.Run(t, p.ns, "ip", "link", "del", "eth0") }
	for _, row := range []struct {
		name string
		end  func(old, today *lab, p *pod)
	}{
		{"DEL with a result", func(_, today *lab, p *pod) { today.must("DEL", p) }},
		{"DEL without a result, when the link is gone", func(old, today *lab, p *pod) {
			unlink(old, p)
			p.result = nil
			today.must("DEL", p)
		}},
		{"GC", func(old, today *lab, p *pod) {
			unlink(old, p)
			age(old)
			today.must("GC", &pod{id: "x", extra: `"cni.dev/valid-attachments":[]`})
		}},
		{"no verb at all", func(old, _ *lab, p *pod) {
			unlink(old, p)
			age(old)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			old := newLab(t, one)
			p := old.pod("a")
			old.add(p)
			today := old.other("renamed", one)
			result := p.result
			p.result = nil
			today.must("DEL", p) // may be of another network: nothing says that it was this one
			today.refused("ADD", today.pod("b"), 101, "1 addresses in use, 1 of them by files in "+old.leases+"/net: no address is free")
			today.refused("STATUS", &pod{}, 50, "1 of 1 addresses in use, 1 of them by files in "+old.leases+"/net")
			p.result = result
			row.end(old, today, p)
			today.add(today.pod("b"))
		})
	}
}

// TestARenamedNetworksHostPortsKeepTheAddress that they lead to.
func TestARenamedNetworksHostPortsKeepTheAddress(t *testing.T) {
	old := newLab(t, `"subnet":"10.0.0.0/30"`)
	p := old.pod("a")
	old.add(p)
	dir := filepath.Join(old.ports(), "net")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a:eth0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	today := old.other("renamed", old.keys)
	today.must("DEL", p)
	today.refused("ADD", today.pod("b"), 101, "1 addresses in use")
}
