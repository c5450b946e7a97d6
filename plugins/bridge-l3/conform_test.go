// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// reference builds some of the reference plugins, which the bench module pins, and returns their directory.
func reference(t *testing.T, plugins ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", dir + "/"}
	for _, p := range plugins {
		args = append(args, "github.com/containernetworking/plugins/plugins/"+p)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = "../../test/bench"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the reference plugins: %v\n%s", err, out)
	}
	return dir
}

// TestSameAsTheReferencePlugins gives both the same configuration and compares what they print and what the kernel has.
// A row's intended differences each have a reason; one that is no longer a difference fails the test.
func TestSameAsTheReferencePlugins(t *testing.T) {
	const (
		hairpinOn = "a pod that is balanced to itself needs hairpin, so it is on by default"
		gatewayOn = "the node is a router, so the bridge is a gateway by default"
	)
	gw := `"isGateway":true,"hairpinMode":true,`
	local := func(block string) string { return `"ipam":{"type":"host-local","dataDir":"DIR",` + block + `}` }
	rows := []struct {
		name, keys, args string            // POOL stands for an ipam block, of one family and then of both
		intended         map[string]string // for each fact that differs, why
		older            map[string]string // the same, before version 1.1.0
	}{
		{"the usual", gw + "POOL", "", nil, nil},
		{"host-local's old form", gw + local(`"subnet":"10.88.0.0/16","rangeStart":"10.88.4.7","rangeEnd":"10.88.4.9","gateway":"10.88.9.9"`), "",
			map[string]string{"pod routes": gatewayOn, "result routes": gatewayOn}, nil},
		{"IPv6 alone, in a range of its own", gw + local(`"ranges":[[{"subnet":"fd00:88:1::/64","rangeStart":"fd00:88:1::70","rangeEnd":"fd00:88:1::7f","gateway":"fd00:88:1::fe"}]],"routes":[{"dst":"::/0"}]`), "", nil, nil},
		{"a range of two subnets", gw + local(`"ranges":[[{"subnet":"10.88.1.0/24","rangeStart":"10.88.1.20","rangeEnd":"10.88.1.20"},{"subnet":"10.88.2.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]`), "", nil, nil},
		{"two ranges of one subnet, each with its gateway", gw + `"args":{"cni":{"ips":["10.88.1.35"]}},` + local(`"ranges":[[{"subnet":"10.88.1.0/24","rangeStart":"10.88.1.20","rangeEnd":"10.88.1.29"},{"subnet":"10.88.1.0/24","rangeStart":"10.88.1.30","rangeEnd":"10.88.1.39","gateway":"10.88.1.3"}]],"routes":[{"dst":"0.0.0.0/0"}]`), "", nil, nil},
		{"an address of each of two ranges of one subnet", gw + local(`"ranges":[[{"subnet":"10.88.1.0/24","rangeEnd":"10.88.1.19"}],[{"subnet":"10.88.1.0/24","rangeStart":"10.88.1.20"}]],"routes":[{"dst":"0.0.0.0/0"}]`), "", nil, nil},
		{"a default gateway", `"isDefaultGateway":true,"hairpinMode":true,` + local(`"subnet":"10.88.1.0/24"`), "", nil, nil},
		{"a default gateway, both families", `"isDefaultGateway":true,"hairpinMode":true,` + local(`"ranges":[[{"subnet":"10.88.1.0/24"}],[{"subnet":"fd00:88:1::/64"}]]`), "", nil, nil},
		{"nothing said", local(`"subnet":"10.88.1.0/24","routes":[{"dst":"0.0.0.0/0"}]`), "", map[string]string{"bridge addresses": gatewayOn, "forwarding": gatewayOn, "port hairpin": hairpinOn}, nil},
		{"nothing said, IPv6", local(`"subnet":"fd00:88:1::/64","routes":[{"dst":"::/0"}]`), "", map[string]string{"bridge addresses": gatewayOn, "forwarding 6": gatewayOn, "port hairpin": hairpinOn}, nil},
		{"no gateway", `"isGateway":false,"hairpinMode":false,` + local(`"subnet":"10.88.1.0/24"`), "", nil, nil},
		{"no gateway, IPv6", `"isGateway":false,"hairpinMode":false,` + local(`"subnet":"fd00:88:1::/64"`), "", nil, nil},
		{"hairpin off", `"isGateway":true,"hairpinMode":false,POOL`, "", nil, nil},
		{"promiscuous", `"isGateway":true,"promiscMode":true,POOL`, "", nil, nil},
		{"isolated", gw + `"portIsolation":true,POOL`, "", nil, nil},
		{"an MTU", gw + `"mtu":1380,POOL`, "", nil, nil},
		{"another name", `"bridge":"br.0",` + gw + "POOL", "", nil, nil},
		{"another address on the bridge, replaced", `"bridge":"old0","forceAddress":true,` + gw + "POOL", "", nil, nil},
		{"MAC check", gw + `"macspoofchk":true,POOL`, "", nil, nil},
		{"routes with everything", gw + local(`"subnet":"10.88.1.0/24","routes":[{"dst":"10.0.0.0/8","gw":"10.88.1.7","priority":77},{"dst":"172.16.0.0/12","scope":0,"table":201}]`), "", nil,
			map[string]string{"result routes": "a route has no more than dst and gw before 1.1.0"}},
		{"IPv6 routes with everything", gw + local(`"subnet":"fd00:88:1::/64","routes":[{"dst":"fd01::/16","gw":"fd00:88:1::7","priority":77},{"dst":"fd02::/16","table":201}]`), "", nil,
			map[string]string{"result routes": "a route has no more than dst and gw before 1.1.0"}},
		{"routes with an MTU", gw + local(`"subnet":"10.88.1.0/24","routes":[{"dst":"10.0.0.0/8","mtu":1300,"advmss":1200}]`), "",
			map[string]string{"pod routes": "the reference prints a route's mtu and advmss in its result and does not set them"},
			map[string]string{"pod routes": "the same", "result routes": "a route has no more than dst and gw before 1.1.0"}},
		{"an asked-for address", gw + `"args":{"cni":{"ips":["10.88.1.50"]}},POOL`, "", nil, nil},
		{"an address by CNI_ARGS", gw + "POOL", "IgnoreUnknown=1;IP=10.88.1.51", nil, nil},
		{"an asked-for MAC", gw + `"runtimeConfig":{"mac":"02:00:00:00:00:51"},POOL`, "", nil, nil},
		{"a MAC by args", gw + `"args":{"cni":{"mac":"02:00:00:00:00:52"}},POOL`, "", nil, nil},
		{"a MAC by CNI_ARGS", gw + "POOL", "IgnoreUnknown=1;MAC=02:00:00:00:00:53", nil, nil},
		{"addresses by capability", gw + `"capabilities":{"ips":true},"runtimeConfig":{"ips":["10.88.1.52/24"]},POOL`, "", nil, nil},
		{"IPv6 address by capability", gw + `"runtimeConfig":{"ips":["fd00:88:1::52"]},` + local(`"ranges":[[{"subnet":"10.88.1.0/24"}],[{"subnet":"fd00:88:1::/64"}]],"routes":[{"dst":"::/0"}]`), "", nil, nil},
		{"ranges by capability", gw + `"capabilities":{"ipRanges":true},"runtimeConfig":{"ipRanges":[[{"subnet":"10.99.1.0/24"}],[{"subnet":"fd00:99::/64"}]]},` + local(`"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`), "", nil, nil},
		{"duplicate detection", gw + `"enabledad":true,` + local(`"subnet":"fd00:88:1::/64"`), "", map[string]string{"pod routes": gatewayOn, "result routes": gatewayOn}, nil},
		{"DNS of the configuration", gw + `"dns":{"nameservers":["10.0.0.53"],"search":["x.test"]},POOL`, "", nil, nil},
		{"DNS of a file", gw + local(`"subnet":"10.88.1.0/24","routes":[{"dst":"0.0.0.0/0"}],"resolvConf":"/etc/protocols"`), "", nil, nil},
		{"layer 2 only", `"hairpinMode":true,"ipam":{}`, "", nil, nil},
		{"layer 2 only, left down", `"hairpinMode":true,"disableContainerInterface":true,"ipam":{}`, "", nil, nil},
	}
	if bridgesKnowVLANs(t) {
		for name, keys := range map[string]string{
			"a VLAN": `"vlan":5,`, "a VLAN beside the default one": `"vlan":5,"preserveDefaultVlan":true,`,
			"a trunk": `"vlanTrunk":[{"id":7},{"minID":10,"maxID":12}],`, "a VLAN and a trunk": `"vlan":5,"vlanTrunk":[{"id":7}],`,
		} {
			rows = append(rows, rows[0])
			rows[len(rows)-1].name, rows[len(rows)-1].keys = name, gw+keys+"POOL"
		}
	}
	named := ""
	bin := reference(t, "main/bridge", "ipam/host-local")
	for _, row := range rows {
		named += row.keys
		pools := []string{local(`"ranges":[[{"subnet":"10.88.1.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]`),
			local(`"ranges":[[{"subnet":"10.88.1.0/24"}],[{"subnet":"fd00:88:1::/64"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`)}
		if !strings.Contains(row.keys, "POOL") {
			pools = pools[:1]
		}
		for i, pool := range pools {
			for _, version := range []string{"0.4.0", "1.1.0"} {
				t.Run(fmt.Sprint(row.name, " ", i+1, " ", version), func(t *testing.T) {
					keys := strings.ReplaceAll(row.keys, "POOL", pool)
					theirs := newLab(t, keys)
					theirs.self, theirs.path = filepath.Join(bin, "bridge"), bin
					a, b := facts(t, theirs, version, row.args), facts(t, newLab(t, keys), version, row.args)
					intended := row.intended
					if version == "0.4.0" && row.older != nil {
						intended = row.older
					}
					for fact, reason := range intended {
						if a[fact] == b[fact] {
							t.Errorf("%s is the same with both, though %s", fact, reason)
						}
						delete(a, fact)
						delete(b, fact)
					}
					if diff := cmp.Diff(a, b); diff != "" {
						t.Errorf("(-reference +bridge-l3):\n%s", diff)
					}
				})
			}
		}
	}
	elsewhere := map[string]string{
		"ipMasq": "refused: pods are never masqueraded (TestMistakesAreNamedAllAtOnceWithTheirPlaces)", "ipMasqBackend": "the same",
		"vlan": "TestVLANs", "vlanTrunk": "TestVLANs", "preserveDefaultVlan": "TestVLANs",
	}
	for _, key := range append(keysOf(t, "NetConf", bridgeSource), keysOf(t, "IPAMConfig", ipamSource)...) {
		if _, ok := elsewhere[key]; !ok && !strings.Contains(named+local(""), `"`+key+`"`) {
			t.Errorf("no row has the reference's key %s", key)
		}
	}
}

// facts attaches a pod and describes it in words that do not depend on chance names.
func facts(t *testing.T, l *lab, version, args string) map[string]string {
	t.Helper()
	l.version = version
	l.keys = strings.ReplaceAll(l.keys, "DIR", l.leases)
	p := l.pod("a")
	p.args = args
	if strings.Contains(l.keys, "old0") {
		nstest.Sh(t, l.node, "ip link add old0 type bridge; ip addr add 172.17.0.1/16 dev old0; ip addr add fd99::1/64 dev old0 nodad")
	}
	r := l.add(p)
	f := resultFacts(t, r, p)
	bridge := r.Interfaces[0].Name
	f["bridge addresses"] = global(nstest.Run(t, l.node, "ip", "-o", "addr", "show", "dev", bridge))
	f["bridge link"] = link(nstest.Run(t, l.node, "ip", "-d", "-o", "link", "show", "dev", bridge))
	f["forwarding"] = nstest.Sh(t, l.node, "cat /proc/sys/net/ipv4/ip_forward")
	f["forwarding 6"] = nstest.Sh(t, l.node, "cat /proc/sys/net/ipv6/conf/all/forwarding")
	f["VLANs"] = vlansOf(t, l.node, r.Interfaces[1].Name)
	port := nstest.Run(t, l.node, "ip", "-d", "-o", "link", "show", "dev", r.Interfaces[1].Name)
	f["port hairpin"], f["port isolated"], f["port link"] = word(port, "hairpin"), word(port, "isolated"), link(port)
	f["pod addresses"] = global(nstest.Run(t, p.ns, "ip", "-o", "addr", "show", "dev", "eth0"))
	f["pod link"] = link(nstest.Run(t, p.ns, "ip", "-d", "-o", "link", "show", "dev", "eth0"))
	f["pod routes"] = routesOf(nstest.Sh(t, p.ns, "ip route show table all; ip -6 route show table all"))
	if l.path == "" { // ours; the reference's CHECK fails without an IPAM plugin, and with a route in another table
		l.must("CHECK", p)
	}
	l.must("DEL", p)
	f["left"] = l.left()
	return f
}

// Where the reference plugins say which keys they have.
const (
	bridgeSource = "github.com/containernetworking/plugins/plugins/main/bridge"
	ipamSource   = "github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
)

// keysOf reads the JSON names of a struct of the reference plugins from its source.
func keysOf(t *testing.T, name, pkg string) (keys []string) {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", "{{.Dir}}", pkg)
	cmd.Dir = "../../test/bench"
	dir, err := cmd.Output()
	if err != nil {
		t.Fatalf("find %s: %v", pkg, err)
	}
	files, err := filepath.Glob(strings.TrimSpace(string(dir)) + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(text), "type "+name+" struct {")
		if !ok {
			continue
		}
		body, _, _ := strings.Cut(rest, "\n}")
		for _, m := range regexp.MustCompile("json:\"(\\w+)").FindAllStringSubmatch(body, -1) {
			keys = append(keys, m[1])
		}
	}
	if len(keys) < 4 {
		t.Fatalf("%s in %s has the keys %v: looking in the wrong place", name, pkg, keys)
	}
	return keys
}

// vlansOf is what the kernel says of a port's VLANs, empty where its bridges know none.
func vlansOf(t *testing.T, node *netns.Handle, port string) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(nstest.Run(t, node, "bridge", "vlan", "show", "dev", port)) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), port))
		if line != "" && !strings.HasPrefix(line, "port") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, "; ")
}

// bridgesKnowVLANs tries it (CONFIG_BRIDGE_VLAN_FILTERING).
func bridgesKnowVLANs(t *testing.T) bool {
	t.Helper()
	return strings.Contains(nstest.Sh(t, nstest.New(t), "ip link add br.v type bridge vlan_filtering 1 2>&1 && echo able || true"), "able")
}

func resultFacts(t *testing.T, r *cni.Result, p *pod) map[string]string {
	t.Helper()
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	f := map[string]string{"result ips": text(r.IPs), "result dns": text(r.DNS)}
	var routes []string
	for _, route := range r.Routes {
		routes = append(routes, toRoute(route).String())
	}
	slices.Sort(routes)
	f["result routes"] = strings.Join(routes, "; ")
	var names []string
	for _, i := range r.Interfaces {
		name := i.Name
		if strings.HasPrefix(name, "veth") {
			name = "veth"
		}
		if i.Sandbox != "" && i.Sandbox != p.ns.Path() {
			name += " in another sandbox"
		}
		names = append(names, name)
	}
	f["result interfaces"] = strings.Join(names, " ")
	return f
}

// global lists the addresses that are not made of a MAC.
func global(out string) string {
	var list []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); strings.Contains(line, "scope global") {
			list = append(list, f[3])
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func link(out string) string {
	s := "mtu " + word(out, "mtu") + " promiscuity " + fmt.Sprint(strings.Contains(out, "PROMISC")) + " up " + fmt.Sprint(regexp.MustCompile(`<[^>]*\bUP\b`).MatchString(out))
	if mac := word(out, "link/ether"); strings.HasPrefix(mac, "02:00:00:00:00:") { // asked for; others are chance
		s += " mac " + mac
	}
	return s
}

func word(out, after string) string {
	f := strings.Fields(out)
	if i := slices.Index(f, after); i >= 0 && i+1 < len(f) {
		return f[i+1]
	}
	return ""
}

// routesOf leaves out what the kernel makes by itself, and how the rest came to be.
func routesOf(out string) string {
	var list []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "proto kernel") || strings.Contains(line, "fe80") || strings.Contains(line, "ff00") {
			continue
		}
		line = regexp.MustCompile(` (proto \w+|pref medium|src \S+|linkdown|metric 1024)`).ReplaceAllString(strings.TrimSpace(line), "")
		list = append(list, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

// TestOtherPluginsWorkOnOurResult chains reference plugins behind ours, as a conflist does: each gets the result of the one
// before, CHECK the last result, DEL the reverse order.
func TestOtherPluginsWorkOnOurResult(t *testing.T) {
	chain := []struct{ plugin, keys string }{
		{"bridge-l3", subnet4},
		{"tuning", `"sysctl":{"net.core.somaxconn":"500"},"mac":"02:00:00:00:00:44"`},
		{"sbr", ""},
		{"firewall", `"backend":"iptables","iptablesAdminChainName":"CNI-ADMIN"`},
		{"bandwidth", `"runtimeConfig":{"bandwidth":{"IngressRate":10000000,"IngressBurst":2000000}}`},
	}
	bin := reference(t, "meta/tuning", "meta/sbr", "meta/bandwidth", "meta/firewall")
	l := newLab(t, "")
	p := l.pod("a")
	ours := l.self
	l.path = bin
	at := func(i int) {
		l.self, l.keys = filepath.Join(bin, chain[i].plugin), chain[i].keys
		if i == 0 {
			l.self = ours
		}
	}
	for i := range chain {
		at(i)
		l.add(p)
	}
	if out := nstest.Sh(t, p.ns, "cat /proc/sys/net/core/somaxconn; ip rule; ip route show table 100; ip link show eth0"); !strings.Contains(out, "500\n") ||
		!strings.Contains(out, "from 10.10.10.2 lookup 100") || !strings.Contains(out, "default via 10.10.10.1") || !strings.Contains(out, "02:00:00:00:00:44") {
		t.Errorf("the others' work:\n%s", out)
	}
	port := attach.PortName("a", "eth0")
	if out := nstest.Run(t, l.node, "tc", "qdisc", "show", "dev", port); !strings.Contains(out, "tbf") {
		t.Errorf("no limit on %s: %s", port, out)
	}
	if out := nstest.Run(t, l.node, "iptables-save"); strings.Count(out, "10.10.10.2") != 2 {
		t.Errorf("the firewall's rules for the pod:\n%s", out)
	}
	var lis net.Listener
	nstest.Do(t, l.node, func() (err error) { lis, err = net.Listen("tcp", "10.10.10.1:0"); return err })
	defer lis.Close()                                         //nolint:errcheck // a test
	if !reaches(t, p.ns, "10.10.10.2", lis.Addr().String()) { // sbr routes by source, so it has to be said
		t.Error("the pod does not reach its gateway")
	}
	for i := range len(chain) {
		at(i)
		if chain[i].plugin == "bridge-l3" { // sbr moved its routes to another table, as it should; that is what it is for
			l.refused("CHECK", p, 100, "route 0.0.0.0/0 via 10.10.10.1 is missing")
		} else if chain[i].plugin != "sbr" { // which has no CHECK
			l.must("CHECK", p)
		}
	}
	for i := range chain {
		at(len(chain) - 1 - i)
		l.must("DEL", p)
	}
	if out := nstest.Run(t, l.node, "iptables-save"); strings.Contains(out, "10.10.10.2") || l.left() != "" {
		t.Errorf("left behind: %s\n%s", l.left(), out)
	}
}

// TestANodeMayChangeFromTheReferencePlugin: runtimes delete by the configuration of today.
func TestANodeMayChangeFromTheReferencePlugin(t *testing.T) {
	bin := reference(t, "main/bridge", "ipam/host-local")
	l := newLab(t, `"bridge":"docker0","isGateway":true,"ipam":{"type":"host-local","subnet":"10.10.10.0/24","dataDir":"DIR"}`)
	l.keys = strings.ReplaceAll(l.keys, "DIR", l.leases)
	ours := l.self
	old, fresh := l.pod("old"), l.pod("new")
	l.self, l.path = filepath.Join(bin, "bridge"), bin
	l.add(old)
	l.self = ours
	if got := addresses(l.add(fresh)); got != "10.10.10.3/24" {
		t.Errorf("the new pod got %s beside the old one's 10.10.10.2", got)
	}
	reach(t, fresh.ns, old.ns, "10.10.10.2")
	l.must("DEL", old)
	if out := nstest.Run(t, old.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the old pod after DEL:\n%s", out)
	}
	l.must("DEL", fresh)
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}
