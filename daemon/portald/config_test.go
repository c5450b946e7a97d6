// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
	"github.com/l3edge/l3edge/pkg/edge/file"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

func TestParseReportsEveryMistake(t *testing.T) {
	_, err := parse([]string{"--mode=ipvs", "--portal-net=10.100.0.1/16,nonsense,10.0.0.0/8,10.100.0.0/16", "--resync=-1s", "--drain=-1s", "--once", "--dry-run", "--nodeport-addresses=10.20.30.62/24,127.0.0.0/8,x", "start"}, os.Stderr)
	want := `"start" is not a command; there is only: portald status
--services: say where the manifests are, as in --services=/etc/l3edge/services, or --kubernetes
--mode: "ipvs" is neither nftables nor userspace
--dry-run, --once and --cleanup exclude each other
--resync: -1s is negative
--drain: -1s is negative
--portal-net: 10.100.0.1/16 has host bits set: did you mean 10.100.0.0/16?
--portal-net: "nonsense" is not a prefix
--portal-net: 10.100.0.0/16 overlaps 10.0.0.0/8
--nodeport-addresses: 10.20.30.62/24 has host bits set: did you mean 10.20.30.0/24?
--nodeport-addresses: 127.0.0.0/8 is loopback: that is --localhost-nodeports
--nodeport-addresses: "x" is not a prefix`
	if !errors.As(err, new(usageError)) || err.Error() != want {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, err.Error()))
	}
	if _, err := parse([]string{"--services=x", "--once", "--mode=userspace"}, os.Stderr); err == nil || !strings.Contains(err.Error(), "--once: a userspace portal lives only as long as portald") {
		t.Errorf("--once in userspace mode: %v", err)
	}
}

// TestHelpAndPageAgree: docs/reference/portald.md shows the help text word for word.
func TestHelpAndPageAgree(t *testing.T) {
	var out bytes.Buffer
	if _, err := parse([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/reference/portald.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+out.String()+"```\n") {
		t.Errorf("docs/reference/portald.md lacks this help text:\n%s", out.String())
	}
}

func TestPageNamesEveryAnnotation(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/portald.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range tuning.Keys() {
		if !strings.Contains(string(page), "| `"+key+"` |") {
			t.Errorf("docs/reference/portald.md does not explain %s", key)
		}
	}
}

// TestUnit: what conf/systemd/portald.service starts is a command line that portald takes, and the directives that it
// relies on are there.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("../../conf/systemd/portald.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=/usr/local/bin/portald ")
		if !ok {
			continue
		}
		if _, err := parse(strings.Fields(command), os.Stderr); err != nil {
			t.Errorf("%s: %v", command, err)
		}
		for _, need := range []string{"StartLimitIntervalSec=0\n\n[Service]\n", "Restart=always\n", "Type=notify\n", "FileDescriptorStoreMax=", "RuntimeDirectoryPreserve=yes\n"} {
			if !strings.Contains(string(unit), "\n"+need) {
				t.Errorf("the unit lacks %s", need)
			}
		}
		return
	}
	t.Error("the unit starts nothing")
}

func TestSampleManifests(t *testing.T) {
	s, err := file.Load("../../conf/services")
	if err != nil {
		t.Fatal(err)
	}
	nets := []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")}
	want := portals.Decide(s, portal.Options{Node: node.Node{Name: "kubminion1"}, Nets: nets}, portals.NFTables)
	if len(want.Problems) > 0 {
		t.Error(want.Problems)
	}
	got := map[string]int{}
	for key, p := range want.Portals() {
		got[p.Service.String()+" "+key.String()] = len(p.Endpoints)
	}
	samples := map[string]int{
		"default/kubernetes TCP 10.100.0.2:443": 1, "default/kubernetes-ro TCP 10.100.0.1:80": 1, "default/webfrontend TCP 10.100.87.105:80": 4,
	}
	if d := cmp.Diff(samples, got); d != "" {
		t.Errorf("portals (-want +got):\n%s", d)
	}
}

func TestNodeAddr(t *testing.T) {
	host := []link.HostPrefix{
		hostPrefix("docker0", "10.10.10.1/24"), hostPrefix("eth1", "172.16.0.5/24"), hostPrefix("ens18", "10.20.30.62/24"),
		hostPrefix("ens18", "fe80::1/64"), hostPrefix("ens18", "fd00:20::62/64"),
	}
	pods := node.Node{PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}}
	named := pods
	named.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("172.16.0.5")}
	for _, tt := range []struct {
		name   string
		v4     bool
		node   node.Node
		host   []link.HostPrefix
		uplink string
		want   string
	}{
		{"the node file's first address that the host has", true, named, host, "ens18", "172.16.0.5"},
		{"else one on the uplink", true, pods, host, "ens18", "10.20.30.62"},
		{"without a default route, one that is not the pod bridge's", true, pods, host, "", "172.16.0.5"},
		{"the pod bridge's if there is no other", true, pods, host[:1], "", "10.10.10.1"},
		{"IPv6: never a link-local one", false, pods, host, "ens18", "fd00:20::62"},
		{"none of the family", false, pods, host[:3], "ens18", "invalid IP"},
	} {
		got, ok := nodeAddr(tt.v4, tt.node, tt.host, tt.uplink)
		if got.String() != tt.want || ok != got.IsValid() {
			t.Errorf("%s: got %s %v, want %s", tt.name, got, ok, tt.want)
		}
	}
}

func hostPrefix(name, p string) link.HostPrefix {
	prefix := netip.MustParsePrefix(p)
	return link.HostPrefix{Link: name, Addr: prefix.Addr(), Prefix: prefix.Masked()}
}

func TestPortsFile(t *testing.T) {
	f := portsFile{path: t.TempDir() + "/deep/ports.json"}
	if ports, err := f.load(); err != nil || ports != nil {
		t.Errorf("missing file: %v %v", ports, err)
	}
	want := map[portal.Key]uint16{
		{Addr: netip.MustParseAddr("10.100.0.2"), Protocol: service.TCP, Port: 443}: 60239,
		{Addr: netip.MustParseAddr("fd00:100::2"), Protocol: service.UDP, Port: 53}: 39770,
	}
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := f.load()
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	for key, port := range want {
		if got[key] != port {
			t.Errorf("%s: port %d, want %d", key, got[key], port)
		}
	}
	for _, bad := range []string{"{", `{"TCP 10.100.0.2": 1}`, `{"GRE 10.100.0.2:1": 1}`, `{"TCP 10.100.0.2:1": 70000}`} {
		if err := os.WriteFile(f.path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.load(); err == nil || !strings.Contains(err.Error(), f.path) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
