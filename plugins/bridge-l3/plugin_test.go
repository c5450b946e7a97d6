// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/edge/announce"
	"github.com/l3edge/l3edge/pkg/edge/cni"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestMain makes the test binary be the plugin when a runtime calls it: the tests run the real process.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		hostPortDir = os.Getenv("BRIDGE_TEST_HOSTPORTS")
		patience = 2 * time.Second
		hostLocalDir, defaultLeaseDir = filepath.Join(filepath.Dir(hostPortDir), "hostlocal"), filepath.Join(filepath.Dir(hostPortDir), "default")
		main()
		return
	}
	nstest.Main(m)
}

// lab is one node with a runtime's view of the plugin.
type lab struct {
	t       testing.TB
	node    *netns.Handle
	leases  string
	version string
	name    string // of the network
	keys    string // of the configuration, besides what call adds
	self    string // the plugin's binary
	path    string // CNI_PATH
}

func newLab(t testing.TB, keys string) *lab {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t: t, node: nstest.New(t), leases: filepath.Join(t.TempDir(), "leases"), version: "1.1.0", name: "net", keys: keys, self: self}
}

// pod is one container as the runtime knows it.
type pod struct {
	id     string
	ns     *netns.Handle
	result []byte // of its ADD
	args   string // CNI_ARGS
	extra  string // more keys of the configuration, such as runtimeConfig
}

// ports is where portal would have its records.
func (l *lab) ports() string { return filepath.Join(filepath.Dir(l.leases), "hostports") }

func (l *lab) pod(id string) *pod { return &pod{id: id, ns: nstest.New(l.t)} }

func (l *lab) config(p *pod) string {
	keys := []string{`"cniVersion":"` + l.version + `","name":"` + l.name + `","type":"bridge-l3"`, fmt.Sprintf(`"ipam":{"dataDir":%q}`, l.leases)}
	if strings.Contains(l.keys, `"ipam"`) {
		keys = keys[:1]
	}
	if l.keys != "" {
		keys = append(keys, l.keys)
	}
	if p.extra != "" {
		keys = append(keys, p.extra)
	}
	if p.result != nil {
		keys = append(keys, `"prevResult":`+string(p.result))
	}
	return "{" + strings.Join(keys, ",") + "}"
}

// call runs one verb as a runtime does.
func (l *lab) call(command string, p *pod) (out []byte, err error) {
	path := ""
	if p.ns != nil {
		path = p.ns.Path()
	}
	cmd := exec.Command(l.self)
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + path, "CNI_IFNAME=eth0", "CNI_PATH=" + l.path, "CNI_ARGS=" + p.args, "BRIDGE_TEST_HOSTPORTS=" + l.ports()}
	if l.path != "" { // other plugins run programs; ours must not need any
		cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	}
	cmd.Stdin = strings.NewReader(l.config(p))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = l.node.Do(func() error { out, err = cmd.Output(); return err })
	if err != nil {
		var e struct {
			Code int
			Msg  string
		}
		if json.Unmarshal(out, &e) == nil && e.Msg != "" {
			err = fmt.Errorf("code %d: %s", e.Code, e.Msg)
		} else {
			err = fmt.Errorf("%w: %s%s", err, out, stderr.Bytes())
		}
	}
	return out, err
}

func (l *lab) add(p *pod) *cni.Result {
	l.t.Helper()
	out, err := l.call("ADD", p)
	if err != nil {
		l.t.Fatalf("ADD of %s: %v", p.id, err)
	}
	p.result = bytes.TrimSpace(out)
	r, err := cni.ParseResult(p.result)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *lab) must(command string, p *pod) {
	l.t.Helper()
	if out, err := l.call(command, p); err != nil || len(out) > 0 {
		l.t.Fatalf("%s of %s: %v: %s", command, p.id, err, out)
	}
}

// refused expects an error with the code and the text.
func (l *lab) refused(command string, p *pod, code int, text string) {
	l.t.Helper()
	_, err := l.call(command, p)
	if want := fmt.Sprintf("code %d: ", code); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), text) {
		l.t.Errorf("%s of %s: %v; want %s…%s", command, p.id, err, want, text)
	}
}

// left is what the node still has of pods: ports of the bridge and files of leases.
func (l *lab) left() string {
	l.t.Helper()
	var out []string
	for line := range strings.Lines(nstest.Run(l.t, l.node, "ip", "-o", "link", "show", "type", "veth")) {
		if name := strings.Fields(line)[1]; !strings.HasPrefix(name, "ens") {
			out = append(out, name)
		}
	}
	err := filepath.WalkDir(l.leases, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".last.") && d.Name() != "lock" && !strings.HasPrefix(d.Name(), "last_reserved_ip") {
			out = append(out, d.Name())
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func addresses(r *cni.Result) (out string) {
	for _, ip := range r.IPs {
		out += " " + ip.Address.String()
	}
	return strings.TrimPrefix(out, " ")
}

const subnet4 = `"bridge":"docker0","subnet":"10.10.10.0/24"`

func TestFirstPodMakesTheBridgeAndLastDelLeavesNothing(t *testing.T) {
	l := newLab(t, subnet4)
	router := nstest.New(t)
	nstest.Veth(t, l.node, "ens18", "192.0.2.1/24", router, "sw", "192.0.2.2/24")
	nstest.Sh(t, l.node, "ip link set ens18 mtu 1450; ip route add default via 192.0.2.2")
	a, b := l.pod("pod-a"), l.pod("pod-b")
	got := l.add(a)
	if addresses(got) != "10.10.10.2/24" || got.IPs[0].Gateway.String() != "10.10.10.1" {
		t.Errorf("first pod: %+v", got)
	}
	wantIfs := []cni.Interface{
		{Name: "docker0", MAC: "0a:58:0a:0a:0a:01", MTU: 1450},
		{Name: got.Interfaces[1].Name, MAC: got.Interfaces[1].MAC, MTU: 1450},
		{Name: "eth0", MAC: "0a:58:0a:0a:0a:02", MTU: 1450, Sandbox: a.ns.Path()},
	}
	if diff := cmp.Diff(wantIfs, got.Interfaces); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	if second := l.add(b); addresses(second) != "10.10.10.3/24" {
		t.Errorf("second pod: %s", addresses(second))
	}
	if out := nstest.Sh(t, l.node, "cat /proc/sys/net/ipv4/ip_forward; ip -br addr show docker0; bridge -d link show"); !strings.HasPrefix(out, "1\n") ||
		!strings.Contains(out, "10.10.10.1/24") || strings.Count(out, "hairpin on") != 2 {
		t.Errorf("node:\n%s", out)
	}
	if out := nstest.Sh(t, a.ns, "ip route; ip -br link show eth0"); !strings.Contains(out, "default via 10.10.10.1 dev eth0") {
		t.Errorf("pod:\n%s", out)
	}
	l.must("CHECK", a)
	if n := reach(t, a.ns, b.ns, "10.10.10.3"); n != "10.10.10.2" {
		t.Errorf("pod-b sees its peer as %s", n)
	}
	reach(t, a.ns, l.node, "10.10.10.1")
	l.must("DEL", a)
	a.ns = nil // the runtime has removed the namespace, and stops once more, without a result
	a.result = nil
	l.must("DEL", a)
	l.must("DEL", a)
	l.must("DEL", b)
	if out := nstest.Run(t, b.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
		t.Errorf("pod-b after DEL:\n%s", out)
	}
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// reach connects from one namespace to a server in another and says which address the server saw.
func reach(t testing.TB, from, to *netns.Handle, addr string) string {
	t.Helper()
	var lis net.Listener
	nstest.Do(t, to, func() (err error) { lis, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); return err })
	defer lis.Close() //nolint:errcheck // a test
	nstest.Do(t, from, func() error {
		c, err := (&net.Dialer{Timeout: 5 * time.Second, FallbackDelay: -1}).Dial("tcp", lis.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	c, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test
	return netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().String()
}

// TestServiceBetweenTwoPodsOfOneBridge: DNAT of a VIP to a pod beside the client. The answer comes back over the bridge
// and must cross conntrack there, or the client gets it from an address that it never called.
func TestServiceBetweenTwoPodsOfOneBridge(t *testing.T) {
	for _, mode := range []string{"bridge", "routed"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, `"ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]],"localRouting":"`+mode+`"`)
			a, b := l.pod("a"), l.pod("b")
			nstest.Sh(t, l.node, `for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do test ! -e $f || echo 0 >$f; done
for f in all default; do echo 1 >/proc/sys/net/ipv4/conf/$f/rp_filter; done`) // the strictest, which most distributions have
			l.add(a)
			l.add(b)
			l.must("CHECK", a)
			nstest.Sh(t, l.node, `nft -f - <<'N'
table ip t {
	chain pre { type nat hook prerouting priority dstnat; ip daddr 10.100.87.105 tcp dport 80 dnat to 10.10.10.3:8080; ip daddr 10.100.87.106 tcp dport 80 dnat to 10.10.10.2:8080; }
	chain post { type nat hook postrouting priority srcnat; ip saddr 10.10.10.2 ip daddr 10.10.10.2 masquerade; }
}
table ip6 t {
	chain pre { type nat hook prerouting priority dstnat; ip6 daddr fd00:100::5 tcp dport 80 dnat to [fd00:10::3]:8080; ip6 daddr fd00:100::6 tcp dport 80 dnat to [fd00:10::2]:8080; }
	chain post { type nat hook postrouting priority srcnat; ip6 saddr fd00:10::2 ip6 daddr fd00:10::2 masquerade; }
}
N`)
			for _, server := range []*pod{a, b} {
				var lis net.Listener
				nstest.Do(t, server.ns, func() (err error) { lis, err = net.Listen("tcp", ":8080"); return err })
				defer lis.Close() //nolint:errcheck // a test
			}
			for _, vip := range []string{"10.100.87.105:80", "10.100.87.106:80", "[fd00:100::5]:80", "[fd00:100::6]:80"} { // the neighbour, itself
				nstest.Do(t, a.ns, func() error {
					c, err := net.DialTimeout("tcp", vip, 5*time.Second)
					if err != nil {
						return fmt.Errorf("%s: %w", vip, err)
					}
					return c.Close()
				})
			}
		})
	}
}

// TestRoutedPodsOfOneNodeMeetInTheNodesRouting counts what the node forwards between two of its pods.
func TestRoutedPodsOfOneNodeMeetInTheNodesRouting(t *testing.T) {
	l := newLab(t, `"ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]],"localRouting":"routed"`)
	a, b := l.pod("a"), l.pod("b")
	if got := addresses(l.add(a)); got != "10.10.10.2/32 fd00:10::2/128" {
		t.Errorf("addresses: %s", got)
	}
	l.add(b)
	nstest.Sh(t, l.node, `for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do test ! -e $f || echo 0 >$f; done
nft 'table inet t { chain f { type filter hook forward priority 0; ip daddr 10.10.10.3 counter drop; ip6 daddr fd00:10::3 counter drop; }; }'`)
	var lis net.Listener
	nstest.Do(t, b.ns, func() (err error) { lis, err = net.Listen("tcp", ":0"); return err })
	defer lis.Close() //nolint:errcheck // a test
	port := netip.MustParseAddrPort(lis.Addr().String()).Port()
	servers := []string{fmt.Sprint("10.10.10.3:", port), fmt.Sprint("[fd00:10::3]:", port)}
	for _, s := range servers {
		if connects(t, a.ns, "", s) {
			t.Errorf("%s is reached past the node's routing", s)
		}
	}
	nstest.Run(t, l.node, "nft", "delete table inet t")
	for range 2 { // the second time as well: no redirect has shown the pod another way
		for _, s := range servers {
			if !reaches(t, a.ns, "", s) {
				t.Errorf("%s is not reached through the node", s)
			}
		}
	}
}

// TestEveryVersion: the result is in the version that was asked for, CHECK is there from the version that has it on.
func TestEveryVersion(t *testing.T) {
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		l := newLab(t, subnet4)
		l.version = version
		p := l.pod("a")
		r := l.add(p)
		text := string(p.result)
		if !strings.Contains(text, `"cniVersion":"`+version+`"`) || strings.Contains(text, `"mtu"`) != (version == "1.1.0") ||
			strings.Contains(text, `"version":"4"`) != (version < "1.0.0") || addresses(r) != "10.10.10.2/24" || r.Interfaces[2].Sandbox != p.ns.Path() {
			t.Errorf("%s: %s", version, text)
		}
		if version >= "0.4.0" {
			l.must("CHECK", p)
		}
		l.must("DEL", p)
		if l.left() != "" {
			t.Errorf("%s: left %s", version, l.left())
		}
	}
}

// TestABridgeThatIsFull: the kernel's limit is 1023 ports, which a large pool can reach; then an ADD says so, and leaves nothing.
func TestABridgeThatIsFull(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","subnet":"10.0.0.0/16"`)
	l.add(l.pod("first"))
	nstest.Sh(t, l.node, "for i in $(seq 1022); do echo link add x$i master docker0 type veth peer name y$i; done | ip -batch -")
	left := l.left()
	p := l.pod("a")
	l.refused("ADD", p, 101, "the bridge has 1023 ports already")
	if l.left() != left {
		t.Error("a refused ADD left something")
	}
	l.must("DEL", p)
}

func TestManyFirstAddsAtOnce(t *testing.T) {
	l := newLab(t, subnet4)
	const n = 24
	pods := make([]*pod, n)
	for i := range pods {
		pods[i] = l.pod(fmt.Sprint("pod-", i))
	}
	var wg sync.WaitGroup
	for _, p := range pods {
		wg.Go(func() {
			out, err := l.call("ADD", p)
			if err != nil {
				t.Errorf("ADD of %s: %v", p.id, err)
			}
			p.result = bytes.TrimSpace(out)
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[string]string{}
	for _, p := range pods {
		r, err := cni.ParseResult(p.result)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[addresses(r)]; ok {
			t.Errorf("%s and %s share %s", p.id, other, addresses(r))
		}
		seen[addresses(r)] = p.id
		l.must("CHECK", p)
	}
	for _, p := range pods {
		wg.Go(func() {
			if _, err := l.call("DEL", p); err != nil {
				t.Errorf("DEL of %s: %v", p.id, err)
			}
		})
	}
	wg.Wait()
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestAddIsWholeOrNothing(t *testing.T) {
	l := newLab(t, `"subnet":"10.0.0.0/30"`) // one pod
	a, b := l.pod("a"), l.pod("b")
	l.add(a)
	l.refused("ADD", a, 102, "attached by eth0 already")
	l.must("CHECK", a)
	l.refused("ADD", b, 101, "1 addresses in use")
	if out := nstest.Run(t, b.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
		t.Errorf("a refused ADD left an interface:\n%s", out)
	}
	l.must("DEL", b)
	l.must("DEL", a)
	l.add(b)
	nstest.Run(t, a.ns, "ip", "link", "add", "eth0", "type", "bridge")
	l.must("DEL", b)
	l.refused("ADD", a, 102, "has an interface eth0 already")
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]],"sourceCheck":true,"promiscMode":true,"hairpinMode":false`)
	p := l.pod("a")
	port := l.add(p).Interfaces[1].Name
	rows := []struct {
		name     string
		where    *netns.Handle
		break_   string
		mend     string
		expected string
	}{
		{"the default route", p.ns, "ip route del default", "ip route add default via 10.10.10.1", "route 0.0.0.0/0 via 10.10.10.1 is missing"},
		{"the address", p.ns, "ip addr add 10.10.10.9/24 dev eth0; ip addr del 10.10.10.2/24 dev eth0", "ip -4 addr flush dev eth0; ip addr add 10.10.10.2/24 dev eth0; ip route add default via 10.10.10.1", "address 10.10.10.2/24 is missing"},
		{"the MAC", p.ns, "ip link set eth0 address 02:00:00:00:00:01", "ip link set eth0 address 0a:58:0a:0a:0a:02", "MAC is 02:00:00:00:00:01"},
		{"the MTU", p.ns, "ip link set eth0 mtu 1300", "ip link set eth0 mtu 1500", "MTU is 1300, want 1500"},
		{"the link", p.ns, "ip link set eth0 down", "ip link set eth0 up; ip route add default via 10.10.10.1; ip -6 addr replace fd00:10::2/64 dev eth0 nodad; ip -6 route replace default via fd00:10::1", "pod interface eth0: down is true"},
		{"the IPv6 route", p.ns, "ip -6 route del default", "ip -6 route add default via fd00:10::1", "route ::/0 via fd00:10::1 is missing"},
		{"router advertisements in the pod", p.ns, "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra", "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra", "eth0/accept_ra is 1, want 0"},
		{"router advertisements on the bridge", l.node, "echo 2 >/proc/sys/net/ipv6/conf/docker0/accept_ra", "echo 0 >/proc/sys/net/ipv6/conf/docker0/accept_ra", "docker0/accept_ra is 2, want 0"},
		{"the port", l.node, "ip link set " + port + " down", "ip link set " + port + " up", "port " + port + ": down is true"},
		{"the port's MTU", l.node, "ip link set " + port + " mtu 1300", "ip link set " + port + " mtu 1500", "port " + port + ": MTU is 1300"},
		{"hairpin", l.node, "bridge link set dev " + port + " hairpin on", "bridge link set dev " + port + " hairpin off", "hairpin is true"},
		{"isolation", l.node, "bridge link set dev " + port + " isolated on", "bridge link set dev " + port + " isolated off", "isolated is true"},
		{"promiscuity", l.node, "ip link set docker0 promisc off", "ip link set docker0 promisc on", "bridge docker0: is not promiscuous"},
		{"what binds the port", l.node, "nft flush set bridge l3edge_pods src4", "nft add element bridge l3edge_pods src4 '{ " + port + " . 0a:58:0a:0a:0a:02 . 10.10.10.2 }'", "may send as 0a:58:0a:0a:0a:02, [:: fd00:10::2 fe80::858:aff:fe0a:a02], want"},
		{"membership of the bridge", l.node, "ip link set " + port + " nomaster", "ip link set " + port + " master docker0", `is a port of ""`},
		{"the gateway", l.node, "ip addr del 10.10.10.1/24 dev docker0", "ip addr add 10.10.10.1/24 dev docker0", "address 10.10.10.1/24 is missing"},
		{"the IPv6 gateway", l.node, "ip addr del fd00:10::1/64 dev docker0", "ip addr add fd00:10::1/64 dev docker0 nodad", "address fd00:10::1/64 is missing"},
		{"IPv6 forwarding", l.node, "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/forwarding is 0"},
		{"forwarding", l.node, "echo 0 >/proc/sys/net/ipv4/ip_forward", "echo 1 >/proc/sys/net/ipv4/ip_forward", "net/ipv4/ip_forward is 0"},
		{"the lease", l.node, "mv " + l.leases + "/net/10.10.10.2 " + l.leases + "/x", "mv " + l.leases + "/x " + l.leases + "/net/10.10.10.2", "10.10.10.2 is not held"},
		{"the bridge", l.node, "ip link set docker0 down", "ip link set docker0 up; ip -6 addr replace fd00:10::1/64 dev docker0 nodad", "bridge docker0: is gone"},
	}
	for _, call := range []string{"iptables", "ip6tables"} { // services between two pods of the bridge
		file := "/proc/sys/net/bridge/bridge-nf-call-" + call
		if _, err := os.Stat(file); err == nil {
			rows = append(rows, rows[0])
			r := &rows[len(rows)-1]
			r.name, r.where, r.break_, r.mend, r.expected = call+" on the bridge", l.node, "echo 0 >"+file, "echo 1 >"+file, "bridge-nf-call-"+call+" is 0, want 1"
		}
	}
	l.must("CHECK", p)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			nstest.Sh(t, row.where, row.break_)
			l.refused("CHECK", p, 100, row.expected)
			nstest.Sh(t, row.where, row.mend)
			l.must("CHECK", p)
		})
	}
}

func TestGarbageGoesAndTheRestStays(t *testing.T) {
	l := newLab(t, subnet4)
	a, b, c := l.pod("a"), l.pod("b"), l.pod("c")
	for _, p := range []*pod{a, b, c} {
		l.add(p)
	}
	// b's lease is lost, c's link is: GC finds both by what is left.
	nstest.Sh(t, l.node, "rm "+l.leases+"/net/by-owner/b@eth0 "+l.leases+"/net/10.10.10.3")
	nstest.Run(t, c.ns, "ip", "link", "del", "eth0")
	keep := &pod{id: "ignored", extra: `"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]`}
	l.must("GC", keep)
	l.must("CHECK", a)
	if out := nstest.Run(t, b.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
		t.Errorf("b survived:\n%s", out)
	}
	l.refused("GC", &pod{id: "ignored"}, 7, "cni.dev/valid-attachments: missing")
	l.must("GC", &pod{id: "ignored", extra: `"cni.dev/valid-attachments":null`})
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// TestGarbageGoesWhateverIsLeftOfIt: a lease without its link, a link without its lease, and bindings of a port that is gone,
// by a configuration that no longer binds.
func TestGarbageGoesWhateverIsLeftOfIt(t *testing.T) {
	l := newLab(t, subnet4+`,"sourceCheck":true`)
	kept, a := l.pod("kept"), l.pod("a")
	l.add(kept)
	port := l.add(a).Interfaces[1].Name
	nstest.Sh(t, l.node, "rm "+l.leases+"/net/by-owner/a@eth0 "+l.leases+"/net/10.10.10.3; ip link del "+port)
	l.keys = subnet4
	l.must("GC", &pod{id: "x", extra: `"cni.dev/valid-attachments":[{"containerID":"kept","ifname":"eth0"}]`})
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, port) || !strings.Contains(out, "10.10.10.2") {
		t.Errorf("after GC:\n%s", out)
	}
	l.keys += `,"sourceCheck":true`
	l.must("CHECK", kept)
	l.refused("GC", &pod{id: "x", extra: `"cni.dev/valid-attachments":"none"`}, 7, "cni.dev/valid-attachments")
	l.must("CHECK", kept)
}

func TestStatus(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","subnet":"10.0.0.0/30"`)
	p := l.pod("a")
	l.must("STATUS", p)
	l.add(p)
	l.refused("STATUS", p, 50, "full: 1 of 1")
	l.keys = `"bridge":"docker0","subnet":"10.0.0.0/29"`
	l.must("STATUS", p)
	nstest.Sh(t, l.node, "echo 0 >/proc/sys/net/ipv4/ip_forward")
	l.refused("STATUS", p, 51, "ip_forward is 0")
	nstest.Run(t, l.node, "ip", "link", "add", "x0", "type", "veth", "peer", "name", "x1")
	l.keys = `"bridge":"x0","subnet":"10.0.0.0/29"`
	l.refused("STATUS", p, 50, "x0 is not a bridge")
	l.keys = `"nodeFile":"/nowhere/node.json"`
	l.refused("STATUS", p, 50, "/nowhere/node.json is not there")
}

func TestAskedForAddressesAndMAC(t *testing.T) {
	rows := []struct {
		name        string
		args, extra string
		addr, mac   string
	}{
		{"by capability", "", `"runtimeConfig":{"ips":["10.10.10.77/24"],"mac":"02:00:00:00:00:77"}`, "10.10.10.77/24", "02:00:00:00:00:77"},
		{"by args.cni", "", `"args":{"cni":{"ips":["10.10.10.78"],"mac":"02:00:00:00:00:78"}}`, "10.10.10.78/24", "02:00:00:00:00:78"},
		{"by CNI_ARGS, as podman does", "IgnoreUnknown=1;IP=10.10.10.79;MAC=02:00:00:00:00:79", "", "10.10.10.79/24", "02:00:00:00:00:79"},
		{"MAC from the first place that has one", "MAC=02:00:00:00:00:03", `"runtimeConfig":{"mac":"02:00:00:00:00:01"},"args":{"cni":{"mac":"02:00:00:00:00:02"}}`, "10.10.10.2/24", "02:00:00:00:00:01"},
		{"nothing", "", "", "10.10.10.3/24", "0a:58:0a:0a:0a:03"},
	}
	l := newLab(t, subnet4)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := l.pod(fmt.Sprint("p", i))
			p.args, p.extra = row.args, row.extra
			r := l.add(p)
			if addresses(r) != row.addr || r.Interfaces[2].MAC != row.mac {
				t.Errorf("got %s, %s", addresses(r), r.Interfaces[2].MAC)
			}
			l.must("CHECK", p)
		})
	}
	for ip, want := range map[string]string{
		"10.10.10.77": "code 102: claim addresses: 10.10.10.77 is held by container p0, eth0", "10.10.10.1": "code 7: claim addresses: asked-for address 10.10.10.1 cannot be given",
		"10.10.10.255": "code 7: claim addresses: asked-for address 10.10.10.255 cannot be given", "10.9.9.9": "code 7: claim addresses: asked-for address 10.9.9.9 is in no range", "ten": `code 7: CNI_ARGS IP: "ten" is not an address`,
	} {
		p := l.pod("refused")
		p.args = "IP=" + ip
		if _, err := l.call("ADD", p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("IP=%s: %v, want %s", ip, err, want)
		}
	}
}

func TestAddGoesOnWhereAKilledOneStopped(t *testing.T) {
	l := newLab(t, subnet4)
	p := l.pod("a")
	port := l.add(p).Interfaces[1].Name
	nstest.Run(t, l.node, "ip", "link", "set", port, "down") // as it was before the last step
	r := l.add(p)
	if addresses(r) != "10.10.10.2/24" {
		t.Errorf("the second ADD gave %s", addresses(r))
	}
	l.must("CHECK", p)
	nstest.Sh(t, l.node, "rm -r "+l.leases) // the lease is lost and the link stayed
	l.add(p)
	l.must("CHECK", p)
}

func TestAnotherPluginMayGiveTheAddresses(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	script := `#!/bin/sh
echo $CNI_COMMAND >>` + log + `
case $CNI_COMMAND in
ADD) if [ -e ` + dir + `/full ]; then echo '{"code":11,"msg":"come again"}'; exit 1; fi
	echo '{"cniVersion":"1.1.0","ips":[{"address":"10.7.0.9/16","gateway":"10.7.0.1"},{"address":"fd07::9/64"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.0.0.0/8","gw":"10.7.0.3"}],"dns":{"nameservers":["10.0.0.53"]}}';;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "elsewhere"), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	l := newLab(t, fmt.Sprintf(`"ipam":{"type":"elsewhere","range":"anything","dataDir":%q}`, dir))
	l.path = "/nowhere:" + dir
	p := l.pod("a")
	r := l.add(p)
	if addresses(r) != "10.7.0.9/16 fd07::9/64" || len(r.Routes) != 2 || r.DNS.Nameservers[0] != "10.0.0.53" || r.Interfaces[2].MAC != "0a:58:0a:07:00:09" {
		t.Errorf("result: %s", p.result)
	}
	l.must("CHECK", p)
	reach(t, p.ns, l.node, "10.7.0.1")
	reach(t, p.ns, l.node, "fd07::1") // the subnet's first, as none was named
	nstest.Sh(t, l.node, "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
	l.refused("STATUS", p, 51, "net/ipv6/conf/all/forwarding is 0")
	nstest.Sh(t, l.node, "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	l.must("DEL", p)
	l.must("GC", &pod{id: "a", extra: `"cni.dev/valid-attachments":[]`})
	l.must("STATUS", p)
	if err := os.WriteFile(filepath.Join(dir, "full"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.result = nil
	l.refused("ADD", p, 11, "elsewhere: come again")
	if left := l.left(); left != "" {
		t.Errorf("left behind: %s", left)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("ADD CHECK STATUS DEL GC STATUS ADD DEL", strings.Join(strings.Fields(string(text)), " ")); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	l.path = "/nowhere"
	l.refused("ADD", p, 7, "plugin elsewhere is not in CNI_PATH (/nowhere)")
}

// TestRuntimeConfigInAnyLetterCase: containerd writes HostPort, so nobody may count on the case of any key.
func TestRuntimeConfigInAnyLetterCase(t *testing.T) {
	l := newLab(t, "")
	for i, extra := range []string{
		`"runtimeConfig":{"IPs":["10.5.0.9"],"Mac":"02:00:00:00:00:09","IPRanges":[[{"Subnet":"10.5.0.0/24","RangeStart":"10.5.0.8","GATEWAY":"10.5.0.200"}]]}`,
		`"RuntimeConfig":{"ips":["10.5.0.10"],"mac":"02:00:00:00:00:0a","ipranges":[[{"subnet":"10.5.0.0/24","rangestart":"10.5.0.8","gateway":"10.5.0.200"}]]}`,
	} {
		p := l.pod(fmt.Sprint("p", i))
		p.extra = extra
		r := l.add(p)
		if want := fmt.Sprintf("10.5.0.%d/24", 9+i); addresses(r) != want || r.Interfaces[2].MAC != fmt.Sprintf("02:00:00:00:00:%02x", 9+i) || r.IPs[0].Gateway.String() != "10.5.0.200" {
			t.Errorf("got %s", p.result)
		}
		l.must("CHECK", p)
	}
}

// TestDelByTheConfigurationOfToday: runtimes send it, and not that of the ADD; with or without a result, in a namespace that
// may be gone. A configuration that no ADD would take deletes too.
func TestDelByTheConfigurationOfToday(t *testing.T) {
	l := newLab(t, subnet4+`,"sourceCheck":true`)
	dir := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":"nonsense"}`, l.leases)
	for i, today := range []string{
		`"bridge":"docker0","subnet":"10.99.0.0/16"`, `"bridge":"other0","vlan":5,"ipMasq":true,` + dir, `"nonsense":1,"mtu":"x",` + dir,
		`"subnet":"10.10.10.0/33","dns":7,"runtimeConfig":[],"args":5,` + dir,
	} {
		for _, lost := range []string{"nothing", "the result", "the namespace"} {
			p := l.pod(fmt.Sprint("p", i))
			l.add(p)
			ns := p.ns
			switch lost {
			case "the result":
				p.result = nil
			case "the namespace":
				p.ns, p.result = nil, []byte(`{"cniVersion":"9.9.9"}`)
			}
			then := l.keys
			l.keys = today
			for range 3 {
				l.must("DEL", p)
			}
			l.keys = then
			if out := nstest.Run(t, ns, "ip", "-br", "link"); strings.Contains(out, "eth0") || l.left() != "" {
				t.Errorf("%s, without %s: left %q and\n%s", today, lost, l.left(), out)
			}
			if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, "elements") {
				t.Errorf("%s, without %s:\n%s", today, lost, out)
			}
		}
	}
	p := l.pod("a")
	l.keys = `"nonsense":1,"mtu":"x",` + dir
	for _, command := range []string{"ADD", "CHECK"} {
		l.refused(command, p, 7, "mtu: \"x\" is not a number\nnonsense: there is no such key\nipam.ranges: \"nonsense\" is not a list")
	}
	l.refused("STATUS", p, 50, "nonsense: there is no such key")
}

// TestIPv6IsThereAtOnce: no address of a pod or of its gateway is looked for duplicates of, which takes a second.
func TestIPv6IsThereAtOnce(t *testing.T) {
	l := newLab(t, `"ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]]`)
	for _, id := range []string{"first", "second"} {
		p := l.pod(id)
		l.add(p)
		for _, ns := range []*netns.Handle{p.ns, l.node} {
			if out := nstest.Run(t, ns, "ip", "-6", "addr", "show", "scope", "global", "tentative"); out != "" {
				t.Errorf("%s: tentative right after ADD:\n%s", id, out)
			}
		}
		reach(t, p.ns, l.node, "fd00:10::1")
		if out := nstest.Sh(t, p.ns, "cat /proc/sys/net/ipv6/conf/eth0/accept_ra"); out != "0\n" {
			t.Errorf("accept_ra is %s: a pod could take its routes from another one", out)
		}
	}
}

func TestNeighboursHearOfAGivenMAC(t *testing.T) {
	l := newLab(t, `"bridge":"docker0","ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]]`)
	first, p := l.pod("makes-the-bridge"), l.pod("a")
	first.args = "IP=10.10.10.9,fd00:10::9"
	p.extra = `"runtimeConfig":{"ips":["10.10.10.2","fd00:10::2"],"mac":"02:00:00:00:00:77"}`
	l.add(first)
	for _, addr := range []string{"10.10.10.2", "fd00:10::2"} {
		nstest.Sh(t, l.node, "ip neigh replace "+addr+" lladdr 02:00:00:00:00:99 dev docker0 nud stale")
	}
	l.add(p)
	for _, addr := range []string{"10.10.10.2", "fd00:10::2"} {
		out := ""
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && !strings.Contains(out, "02:00:00:00:00:77"); {
			out = nstest.Run(t, l.node, "ip", "neigh", "show", addr)
		}
		if !strings.Contains(out, "02:00:00:00:00:77") {
			t.Errorf("the node still has %s", out)
		}
	}
}

// connects tries a connection from an address of a namespace to a server.
func connects(t testing.TB, from *netns.Handle, source, server string) bool {
	t.Helper()
	err := from.Do(func() error {
		d := net.Dialer{Timeout: 400 * time.Millisecond, FallbackDelay: -1, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		c, err := d.Dial("tcp", server)
		if err != nil {
			return err
		}
		return c.Close()
	})
	return err == nil
}

// reaches is connects with the patience that a loaded machine asks for.
func reaches(t testing.TB, from *netns.Handle, source, server string) bool {
	t.Helper()
	for range 12 {
		if connects(t, from, source, server) {
			return true
		}
	}
	return false
}

func TestSourceCheckBindsAPodToItsAddresses(t *testing.T) {
	l := newLab(t, `"ranges":[[{"subnet":"10.10.10.0/24"}],[{"subnet":"fd00:10::/64"}]],"sourceCheck":true`)
	a, b := l.pod("a"), l.pod("b")
	l.add(a)
	l.add(b)
	l.must("CHECK", a)
	var lis net.Listener
	nstest.Do(t, b.ns, func() (err error) { lis, err = net.Listen("tcp", ":0"); return err })
	defer lis.Close() //nolint:errcheck // a test
	port := netip.MustParseAddrPort(lis.Addr().String()).Port()
	v4, v6 := fmt.Sprint("10.10.10.3:", port), fmt.Sprint("[fd00:10::3]:", port)
	nstest.Sh(t, a.ns, "ip addr add 10.10.10.99/24 dev eth0; ip addr add fd00:10::99/64 dev eth0 nodad")
	for _, row := range []struct {
		source, server string
		want           bool
	}{{"10.10.10.2", v4, true}, {"fd00:10::2", v6, true}, {"10.10.10.99", v4, false}, {"fd00:10::99", v6, false}} {
		try := connects
		if row.want {
			try = reaches
		}
		if try(t, a.ns, row.source, row.server) != row.want {
			t.Errorf("%s to %s: connected is not %t", row.source, row.server, row.want)
		}
	}
	// a says that b's addresses are at a's MAC
	for _, addr := range []string{"10.10.10.3", "fd00:10::3"} {
		nstest.Sh(t, l.node, "ip neigh replace "+addr+" lladdr 0a:58:0a:0a:0a:03 dev cni0 nud stale")
		nstest.Do(t, a.ns, func() error {
			i, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			return announce.Send(i.Index, [6]byte(i.HardwareAddr), netip.MustParseAddr(addr))
		})
		reach(t, a.ns, l.node, "10.10.10.1") // what was sent before this has arrived, or never will
		if out := nstest.Run(t, l.node, "ip", "neigh", "show", addr); !strings.Contains(out, "0a:58:0a:0a:0a:03") {
			t.Errorf("a took %s from b: %s", addr, out)
		}
	}
	nstest.Run(t, a.ns, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
	if connects(t, a.ns, "10.10.10.2", v4) {
		t.Error("another MAC passes")
	}
	l.must("DEL", a)
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, "10.10.10.2") || !strings.Contains(out, "10.10.10.3") {
		t.Errorf("after a's DEL:\n%s", out)
	}
	l.keys = strings.ReplaceAll(l.keys, "true", "false") // the configuration changed while b ran
	l.must("DEL", b)
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, "elements") {
		t.Errorf("after b's DEL:\n%s", out)
	}
}

// TestCheckSeesThatNothingBindsAnyMore: rules that are gone let everything pass, however well the sets are filled.
func TestCheckSeesThatNothingBindsAnyMore(t *testing.T) {
	l := newLab(t, subnet4+`,"sourceCheck":true`)
	p := l.pod("a")
	l.add(p)
	nstest.Run(t, l.node, "nft", "flush", "chain", "bridge", "l3edge_pods", "prerouting")
	l.refused("CHECK", p, 100, "table bridge l3edge_pods has been changed: its rules are 0, not 9")
	nstest.Run(t, l.node, "nft", "flush", "ruleset")
	l.refused("CHECK", p, 100, "may send as 00:00:00:00:00:00, [], want 0a:58:0a:0a:0a:02, [10.10.10.2]")
}

func TestMACSpoofCheckBindsAPodToItsMAC(t *testing.T) {
	l := newLab(t, subnet4+`,"macspoofchk":true`)
	p := l.pod("a")
	l.add(p)
	l.must("CHECK", p)
	var lis net.Listener
	nstest.Do(t, l.node, func() (err error) { lis, err = net.Listen("tcp", "10.10.10.1:0"); return err })
	defer lis.Close() //nolint:errcheck // a test
	nstest.Sh(t, p.ns, "ip addr add 10.10.10.99/24 dev eth0")
	if !reaches(t, p.ns, "10.10.10.2", lis.Addr().String()) || !reaches(t, p.ns, "10.10.10.99", lis.Addr().String()) {
		t.Error("the pod's own MAC does not pass")
	}
	nstest.Run(t, p.ns, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
	if connects(t, p.ns, "10.10.10.2", lis.Addr().String()) {
		t.Error("another MAC passes")
	}
	l.must("GC", &pod{id: "x", extra: `"cni.dev/attachments":[]`})
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, "elements") || l.left() != "" {
		t.Errorf("after GC: %s\n%s", l.left(), out)
	}
}

// TestPodsDoNotGiveTheNodeRoutes: the node takes its own default route from advertisements, so accept_ra is 2 for all that
// comes up; the bridge must not do the same.
func TestPodsDoNotGiveTheNodeRoutes(t *testing.T) {
	l := newLab(t, subnet4)
	nstest.Sh(t, l.node, "echo 2 >/proc/sys/net/ipv6/conf/default/accept_ra; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	p := l.pod("a")
	l.add(p)
	if out := nstest.Sh(t, l.node, "cat /proc/sys/net/ipv6/conf/docker0/accept_ra"); out != "0\n" {
		t.Errorf("accept_ra of the bridge is %s", out)
	}
	l.must("CHECK", p)
}

func TestABridgeWithAnotherAddress(t *testing.T) {
	l := newLab(t, subnet4)
	nstest.Sh(t, l.node, "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0")
	p := l.pod("a")
	l.refused("ADD", p, 102, "bridge docker0 has address 172.17.0.1/16, this network wants 10.10.10.1/24")
	if out := nstest.Run(t, l.node, "ip", "-br", "-4", "addr", "show", "docker0"); strings.Contains(out, "10.10.10.1") || !strings.Contains(out, "172.17.0.1") {
		t.Errorf("after the refusal: %s", out)
	}
	l.keys += `,"forceAddress":true`
	l.add(p)
	if out := nstest.Run(t, l.node, "ip", "-br", "-4", "addr", "show", "docker0"); !strings.Contains(out, "10.10.10.1") || strings.Contains(out, "172.17.0.1") {
		t.Errorf("with forceAddress: %s", out)
	}
	l = newLab(t, `"bridge":"dummy0","subnet":"10.10.10.0/24"`)
	nstest.Run(t, l.node, "ip", "link", "add", "dummy0", "type", "veth", "peer", "name", "x")
	l.refused("ADD", l.pod("b"), 7, "dummy0 is not a bridge")
	l = newLab(t, `"ranges":[[{"subnet":"10.1.0.0/30"},{"subnet":"10.2.0.0/30"}]]`)
	for _, want := range []string{"10.1.0.2/30", "10.2.0.2/30"} { // two gateways side by side
		if got := addresses(l.add(l.pod("of-" + want[:4]))); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
