// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/peer"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

var (
	pfx     = netip.MustParsePrefix
	addr    = netip.MustParseAddr
	compare = []cmp.Option{
		cmp.AllowUnexported(config{}),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
)

func noSubnets(string) ([]netip.Prefix, error) { return nil, nil }

func TestParseFillsIn(t *testing.T) {
	found := func(dir string) ([]netip.Prefix, error) {
		if dir != "/etc/cni/net.d" {
			t.Errorf("asked for %s", dir)
		}
		return []netip.Prefix{pfx("10.10.10.0/24")}, nil
	}
	got, err := parse(raw{Peers: []rawPeer{{Name: "mls"}}, CNIConfDir: "/etc/cni/net.d"}, "kubminion1", found)
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		node: "kubminion1", peers: []bgp.Peer{{Name: "mls", Settings: bgp.Settings{MaxPrefixes: 250_000}}}, podSubnets: []netip.Prefix{pfx("10.10.10.0/24")},
		accept: []route.Accept{route.AcceptAll(pfx("10.10.0.0/16"))}, listenAs: bgp.Settings{MaxPrefixes: 250_000},
	}
	if diff := cmp.Diff(want, got, compare...); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"good", "secret\n", 0o600, ""},
		{"open", "secret\n", 0o644, "peers[0].passwordFile: FILE is readable by others: chmod 600"},
		{"empty", "\n", 0o600, "peers[0].passwordFile: FILE holds 0 bytes, a TCP MD5 key has 1 to 80"},
	} {
		path := filepath.Join(dir, tt.name)
		if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
			t.Fatal(err)
		}
		c, err := parse(raw{Peers: []rawPeer{{Name: "mls", rawSettings: rawSettings{Pass: path}}}, PodSubnets: []string{"10.10.10.0/24"}}, "n", noSubnets)
		got := ""
		if err != nil {
			got = strings.ReplaceAll(err.Error(), path, "FILE")
		} else if c.peers[0].Password != "secret" {
			t.Errorf("%s: password %q", tt.name, c.peers[0].Password)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name string
		in   raw
		want string
	}{
		{"nobody to talk to", raw{PodSubnets: []string{"10.10.10.0/24"}}, "peers: none given, and no listenRanges: whom should we talk to? (--peer=NAME)"},
		{"no pod subnet", raw{Peers: []rawPeer{{Name: "mls"}}, CNIConfDir: "/etc/cni/net.d"}, "podSubnets: none given, and no bridge-l3 entry in /etc/cni/net.d names one (--pod-subnet=PREFIX)"},
		{"a router that may learn nothing", raw{ListenRanges: []string{"10.20.30.0/24"}}, "accept: a router without a pod subnet must be told which prefixes to learn (--accept=PREFIX)"},
		{"everything at once", raw{
			Groups: map[string]rawSettings{"tor": {BFD: "1ms", Communities: []string{"64512:70000"}}},
			Peers: []rawPeer{
				{Name: "mls", rawSettings: rawSettings{Port: 70000, AddPaths: 99}}, {}, {Name: "mls"}, {Name: "fe80::1", Group: "spine"},
				{Name: "fd00::1", rawSettings: rawSettings{LocalAddress: "10.20.30.62"}}, {Name: "a", Interface: "ens18"},
			},
			PodSubnets: []string{"10.10.10.1/24"}, ListenRanges: []string{"mls"}, ListenGroup: "leaf", OnStop: "wait", BMP: []string{"mls"},
			RouterID: "mls", LocalAddress: "eth0", HoldTime: "1s", RestartTime: "1.5s", Accept: []string{"10.10.0.0/16,max=40"}, Port: -1,
		}, `routerID: "mls" is not four numbers such as 10.20.30.62
localAddress: "eth0" is not an address
holdTime: "1s" is not a number of whole seconds from 3s to 18h12m15s
restartTime: "1.5s" is not a number of whole seconds from 1s to 1h8m15s
port: -1 is not a port
onStop: "wait" is neither withdraw nor keep
bmp[0]: "mls" is not ADDRESS:PORT
groups.tor.bfd: "1ms" is not a time from 10ms to 10s
groups.tor.communities[0]: "64512:70000" is not a community: N:N of 16 bits each, N:N:N of 32, no-export, no-advertise, no-export-subconfed, no-peer, blackhole, graceful-shutdown or no-llgr
peers[0].port: 70000 is not a port
peers[0].addPaths: 99 is not a number from 0 to 32
peers[1].name: missing
peers[2].name: mls is there twice
peers[3].group: there is no group "spine"
peers[3].name: fe80::1 is on every link: which one? (fe80::1%ens18)
peers[4].localAddress: from 10.20.30.62 nobody reaches fd00::1
peers[5].interface: a peer has a name or an interface, not both
listenGroup: there is no group "leaf"
listenRanges[0]: "mls" is not a prefix
podSubnets[0]: 10.10.10.1/24 has host bits set: did you mean 10.10.10.0/24?
accept[0]: max=40 is not a length from 16 to 32`},
		{"overlapping pod subnets", raw{Peers: []rawPeer{{Name: "mls"}}, PodSubnets: []string{"10.10.10.0/24", "10.10.0.0/16"}}, "podSubnets[1]: 10.10.0.0/16 overlaps podSubnets[0] 10.10.10.0/24"},
		{"overlapping pod subnets are told of beside the rest", raw{Port: -1, PodSubnets: []string{"10.10.10.0/24", "mist", "10.10.0.0/16"}}, `port: -1 is not a port
podSubnets[1]: "mist" is not a prefix
peers: none given, and no listenRanges: whom should we talk to? (--peer=NAME)
podSubnets[2]: 10.10.0.0/16 overlaps podSubnets[0] 10.10.10.0/24`},
		{"a pod subnet is missed beside the rest", raw{Port: -1, Peers: []rawPeer{{Name: "mls"}}}, "port: -1 is not a port\npodSubnets: none given, and no bridge-l3 entry in  names one (--pod-subnet=PREFIX)"},
		{"nobody's addresses", raw{PodSubnets: []string{"10.10.10.0/24"}, Peers: []rawPeer{
			{Name: "0.0.0.0"}, {Name: "::"}, {Name: "224.0.0.1"}, {Name: "255.255.255.255"}, {Name: "::ffff:10.0.0.9"}, {Name: "10.20.30.62", rawSettings: rawSettings{LocalAddress: "10.20.30.62"}},
		}}, `peers[0].name: 0.0.0.0 is no host's address
peers[1].name: :: is no host's address
peers[2].name: 224.0.0.1 is no host's address
peers[3].name: 255.255.255.255 is no host's address
peers[4].name: ::ffff:10.0.0.9 is an IPv4 address: write it so (10.0.0.9)
peers[5].name: 10.20.30.62 is this node itself`},
		{"nobody's ASN", raw{
			ASN: 23456, PodSubnets: []string{"10.10.10.0/24"}, Groups: map[string]rawSettings{"tor": {ASN: 65535}},
			Peers: []rawPeer{{Name: "mls", rawSettings: rawSettings{ASN: 4294967295}}}, Nodes: []rawFor{{Match: map[string]string{"rack": "7"}, ASN: 65535}},
		}, `nodes[0].asn: 65535 is reserved and nobody's ASN
asn: 23456 is reserved and nobody's ASN
groups.tor.asn: 65535 is reserved and nobody's ASN
peers[0].asn: 4294967295 is reserved and nobody's ASN`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(tt.in, "kubminion1", noSubnets)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
	boom := errors.New("boom")
	if _, err := parse(raw{Peers: []rawPeer{{Name: "mls"}}}, "n", func(string) ([]netip.Prefix, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Errorf("a broken conflist is %v", err)
	}
}

func TestAPeerThatIsThisNode(t *testing.T) {
	n, other := newHost(t, "kubminion1"), newHost(t, "mls")
	nstest.Veth(t, n.Handle, "ens18", "10.20.30.62/24", other.Handle, "p1", "10.20.30.1/24")
	nstest.Do(t, n.Handle, func() error {
		err := run([]string{"--check", "--peer=10.20.30.1", "--peer=10.20.30.62", "--pod-subnet=10.10.10.0/24"}, io.Discard, io.Discard)
		if err == nil || err.Error() != "peers[1].name: 10.20.30.62 is this node itself" {
			t.Errorf("got %v", err)
		}
		return nil
	})
}

func TestParsePeer(t *testing.T) {
	yes := true
	tests := []struct {
		in, err string
		want    rawPeer
	}{
		{in: "mls", want: rawPeer{Name: "mls"}},
		{in: "10.20.30.1,asn=64512", want: rawPeer{Name: "10.20.30.1", rawSettings: rawSettings{ASN: 64512}}},
		{in: "mls,gtsm,bfd=50ms,password-file=/etc/l3edge/mls.key", want: rawPeer{Name: "mls", rawSettings: rawSettings{GTSM: &yes, BFD: "50ms", Pass: "/etc/l3edge/mls.key"}}},
		{in: "mls,port=1179,asn=4200000001,group=tor", want: rawPeer{Name: "mls", Group: "tor", rawSettings: rawSettings{Port: 1179, ASN: 4200000001}}},
		{in: "ens18,interface", want: rawPeer{Interface: "ens18"}},
		{in: "mls,asn=0", err: `mls,asn=0: "0" is not a valid asn`},
		{in: "mls,port=99999", err: `mls,port=99999: "99999" is not a valid port`},
		{in: "mls,as=1,port=x", err: `mls,as=1,port=x: "as=1" is not an option: interface, group=NAME, asn=N, port=N, password-file=PATH, gtsm or bfd=TIME
mls,as=1,port=x: "x" is not a valid port`},
	}
	for _, tt := range tests {
		got, err := parsePeer(tt.in)
		if tt.err != "" && (err == nil || err.Error() != tt.err) || tt.err == "" && (err != nil || !cmp.Equal(got, tt.want, cmp.AllowUnexported(rawPeer{}))) {
			t.Errorf("%s: %v, %v", tt.in, got, err)
		}
	}
}

func TestConflistSubnets(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-lo.conflist":     `{"name":"lo","plugins":[{"type":"loopback"}]}`,
		"20-l3edge.conflist": `{"name":"l3edge","plugins":[{"type":"bridge-l3","bridge":"docker0","subnet":"10.10.10.0/24","x":1},{"type":"portal"}]}`,
		"30-other.conflist":  `{"name":"other","plugins":[{"type":"bridge-l3","subnet":"10.10.99.0/24"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := cniSubnets(dir)
	if err != nil || len(got) != 1 || got[0] != pfx("10.10.10.0/24") {
		t.Errorf("%v %v", got, err)
	}
	got, err = conflistSubnets([]byte(`{"plugins":[{"type":"bridge-l3","ipam":{"type":"host-local","ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00::/64"}]]}}]}`))
	if err != nil || len(got) != 2 || got[0] != pfx("10.10.10.0/24") || got[1] != pfx("fd00::/64") {
		t.Errorf("host-local: %v %v", got, err)
	}
	if _, err := conflistSubnets([]byte(`{"plugins":[{"type":"bridge-l3","subnet":"10.10.10.0/33"}]}`)); err == nil {
		t.Error("a broken subnet passes")
	}
	if got, err := cniSubnets(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("no directory: %v %v", got, err)
	}
}

func TestSampleConfiguration(t *testing.T) {
	f := newFlags()
	if err := f.set.Parse([]string{"--conf=../../conf/routed.yaml"}); err != nil {
		t.Fatal(err)
	}
	got, err := f.config()
	if err != nil {
		t.Fatal(err)
	}
	med, pref := uint32(50), uint32(200)
	community := func(s string) bgp.Community {
		c, err := peer.ParseCommunity(s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	tor := bgp.Settings{
		ASN: 64512, Port: 179, LocalAddress: addr("10.20.30.62"), GTSM: true, BFD: 300 * time.Millisecond, Hold: 9 * time.Second, ConnectRetry: time.Second,
		MaxPrefixes: 250_000, LongLived: time.Hour, AddPaths: 4, Prefer: 150,
		Out: bgp.Out{MED: &med, LocalPref: pref, Prepend: 1, Communities: []bgp.Community{community("64512:100"), community("64512:1:2"), community("no-export")}},
	}
	want := config{
		node: "kubminion1", asn: 4201318462, routerID: addr("10.20.30.62"),
		peers: []bgp.Peer{
			{Name: "mls", Settings: bgp.Settings{MaxPrefixes: 250_000}}, {Name: "10.20.30.2", Settings: tor},
			{Name: "ens19", Interface: true, Settings: bgp.Settings{MaxPrefixes: 1000}},
		},
		podSubnets: []netip.Prefix{pfx("10.10.10.0/24"), pfx("fd10:10:0:10::/64")},
		accept:     []route.Accept{route.AcceptAll(pfx("10.10.0.0/16")), route.AcceptAll(pfx("fd10:10::/48"))},
		listenAs:   bgp.Settings{MaxPrefixes: 250_000},
		port:       179, hold: 9 * time.Second, restart: 120 * time.Second,
		portald: "/run/l3edge/portald.sock", nodeFile: "/run/l3edge/node.json", socket: "/run/l3edge/routed.sock",
	}
	if diff := cmp.Diff(want, got, append(compare, cmp.AllowUnexported(bgp.Community{}))...); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestFlagsReplaceTheFile(t *testing.T) {
	f := newFlags()
	if err := f.set.Parse([]string{"--conf=../../conf/routed.yaml", "--peer=a", "--peer=b,asn=7", "--hold-time=30s"}); err != nil {
		t.Fatal(err)
	}
	got, err := f.config()
	if err != nil || len(got.peers) != 2 || got.peers[1].Name != "b" || got.peers[1].ASN != 7 || got.hold != 30*time.Second {
		t.Errorf("%+v %v", got, err)
	}
	f = newFlags()
	if err := f.set.Parse([]string{"--port=abc", "--asn=-1", "--peer=mls,port=0", "--hold-time=soon", "--pod-subnet=10.10.10.0/24"}); err != nil {
		t.Fatal(err)
	}
	want := `--port: "abc" is not a number from 0 to 4294967295
--asn: "-1" is not a number from 0 to 4294967295
--peer: mls,port=0: "0" is not a valid port
holdTime: "soon" is not a number of whole seconds from 3s to 18h12m15s`
	if _, err := f.config(); err == nil || err.Error() != want {
		t.Errorf("wrong flags are told as\n%v\nwant\n%s", err, want)
	}
}

func TestAFileThatIsWrongIsToldAllAtOnce(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "routed.yaml")
	const text = `
node: 7
asn: 64512x
peers:
  - {name: mls, asn: -1, gtsm: maybe}
  - {nam: tor-b}
  - tor-c
groups: {tor: {bfd: 1h, communities: 64512:100}}
podSubnet: 10.10.10.0/24
accept: 10.10.0.0/16
podSubnets: [10.10.10.0/33]
`
	if err := os.WriteFile(bad, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f := newFlags()
	_ = f.set.Parse([]string{"--conf=" + bad})
	_, err := f.config()
	want := strings.ReplaceAll(`FILE: podSubnet: there is no such key; did you mean podSubnets?
FILE: asn: "64512x" is not a number from 0 to 4294967295
FILE: groups.tor.communities: "64512:100" is not a list
FILE: peers[0].asn: -1 is not a number from 0 to 4294967295
FILE: peers[0].gtsm: "maybe" is not true or false
FILE: peers[1].nam: there is no such key; did you mean name?
FILE: peers[2]: "tor-c" is not a set of keys
FILE: accept: "10.10.0.0/16" is not a list
groups.tor.bfd: "1h" is not a time from 10ms to 10s
peers[1].name: missing
peers[2].name: missing
podSubnets[0]: "10.10.10.0/33" is not a prefix`, "FILE", bad)
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Error(d)
	}
}

func TestHelpAndPageAgree(t *testing.T) {
	var help bytes.Buffer
	if err := run([]string{"--help"}, &help, &help); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/reference/routed.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```\n"+help.String()+"```\n") {
		t.Errorf("docs/reference/routed.md does not hold what --help prints:\n%s", help.String())
	}
}

func TestVersionAndCheck(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--version"}, "routed devel\n"},
		{[]string{"--check", "--peer=mls", "--pod-subnet=10.10.10.0/24"}, "ok\n"},
	} {
		var out bytes.Buffer
		if err := run(tt.args, &out, &out); err != nil || out.String() != tt.want {
			t.Errorf("%v: %q %v", tt.args, out.String(), err)
		}
	}
	if err := run([]string{"start"}, &bytes.Buffer{}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), `"start" is not a command`) {
		t.Errorf("got %v", err)
	}
}

func TestOwnASN(t *testing.T) {
	if got := ownASN(addr("10.20.30.62")); got != 4200000000+20<<16+30<<8+62 {
		t.Errorf("got %d", got)
	}
}

// TestUnit checks what a stop and a restart rest on, and that the unit starts what it says.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../../conf/systemd/routed.service")
	if err != nil {
		t.Fatal(err)
	}
	unit, _, _ := strings.Cut(string(text), "\n[Service]\n")
	if !strings.Contains(unit, "\nStartLimitIntervalSec=0\n") {
		t.Error("after a few failures systemd leaves the node without routes: [Unit] lacks StartLimitIntervalSec=0")
	}
	keys := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			keys[k] = v
		}
	}
	for k, want := range map[string]string{"Type": "notify", "KillSignal": "SIGTERM", "RestartKillSignal": "SIGUSR2", "Restart": "always", "RuntimeDirectoryPreserve": "yes"} {
		if keys[k] != want {
			t.Errorf("%s=%s, want %s", k, keys[k], want)
		}
	}
	args := strings.Fields(keys["ExecStart"])
	if len(args) == 0 || filepath.Base(args[0]) != "routed" {
		t.Fatalf("ExecStart=%s", keys["ExecStart"])
	}
	if err := newFlags().set.Parse(args[1:]); err != nil {
		t.Errorf("ExecStart: %v", err)
	}
}
