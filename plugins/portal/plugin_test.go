// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestMain makes the test binary be the plugin when a runtime calls it: the tests run the real process.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		recordDir = os.Getenv("PORTAL_TEST_RECORDS") // each world's own, as each node has its /run
		main()
		return
	}
	nstest.Main(m)
}

// world is a node with two pods behind its bridge and a client outside.
type world struct {
	t                  *testing.T
	node, out          *netns.Handle
	pods               map[string]*netns.Handle
	more, network, cni string
	records            string
}

var addrs = map[string]string{"web": "10.10.10.2", "other": "10.10.10.3"}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, node: nstest.New(t), out: nstest.New(t), pods: map[string]*netns.Handle{}, network: "net", cni: "1.1.0", records: filepath.Join(t.TempDir(), "hostports")}
	nstest.Veth(t, w.node, "ens18", "10.20.30.62/24", w.out, "eth0", "10.20.30.1/24")
	nstest.Sh(t, w.node, `ip link add docker0 type bridge; ip addr add 10.10.10.1/24 dev docker0; ip link set docker0 up
		echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables`)
	nstest.Sh(t, w.out, "ip route add 10.10.10.0/24 via 10.20.30.62")
	for name, a := range addrs {
		w.pods[name] = nstest.New(t)
		nstest.Veth(t, w.node, "v"+name, "", w.pods[name], "eth0", a+"/24")
		nstest.Sh(t, w.node, "ip link set v"+name+" master docker0; bridge link set dev v"+name+" hairpin on")
		nstest.Sh(t, w.pods[name], "ip route add default via 10.10.10.1")
		w.serve(name, "tcp", a+":80")
		w.serve(name, "udp", a+":53")
	}
	return w
}

// serve answers every connection or datagram with the pod's name and the client's address.
func (w *world) serve(name, network, at string) {
	nstest.Do(w.t, w.pods[name], func() error {
		if network == "udp" {
			c, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			w.t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 64)
				for {
					_, from, err := c.ReadFrom(buf)
					if err != nil {
						return
					}
					_, _ = c.WriteTo([]byte(name+" "+from.(*net.UDPAddr).IP.String()), from)
				}
			}()
			return nil
		}
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s %s", name, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		return nil
	})
}

// ask dials from a namespace and returns "POD CLIENT", or "refused" or another error's text.
func (w *world) ask(from *netns.Handle, network, at string) string {
	w.t.Helper()
	var got string
	nstest.Do(w.t, from, func() error {
		c, err := net.DialTimeout(network, at, 2*time.Second)
		if err != nil {
			got = err.Error()
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if network == "udp" {
			_, _ = c.Write([]byte("?"))
			buf := make([]byte, 64)
			n, err := c.Read(buf)
			if got = string(buf[:n]); err != nil {
				got = err.Error()
			}
			return nil
		}
		b, err := io.ReadAll(c)
		if got = string(b); err != nil {
			got = err.Error()
		}
		return nil
	})
	return got
}

// prev is what bridge-l3 would have said of the pod.
func prev(cniVersion, pod string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"interfaces":[{"name":"docker0"},{"name":"v%s"},{"name":"eth0","sandbox":"/x"}],`+
		`"ips":[{"address":"%s/24","gateway":"10.10.10.1","interface":2}],"unknown":{"kept":true}}`, cniVersion, pod, addrs[pod])
}

// call runs the plugin on the node and returns its exit code and output.
func (w *world) call(command, pod, config string) (int, string) {
	w.t.Helper()
	cmd := exec.Command(w.self())
	cmd.Env = w.env(command, pod)
	cmd.Stdin = strings.NewReader(w.stdin(config))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := w.node.Do(cmd.Run)
	if cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.ReplaceAll(out.String(), `\u003e`, ">") // as a JSON reader sees it
}

func (w *world) self() string {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	return self
}

func (w *world) stdin(config string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":%q,"type":"portal"%s%s}`, w.cni, w.network, config, w.more)
}

func (w *world) env(command, pod string) []string {
	return []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=id-" + strings.ReplaceAll(pod, "/", "-"), "CNI_IFNAME=eth0",
		"CNI_NETNS=" + w.netns(command, strings.Split(pod, "/")[0]), "CNI_PATH=/none", "PORTAL_TEST_RECORDS=" + w.records}
}

func (w *world) netns(command, pod string) string {
	if command == "DEL" || w.pods[pod] == nil {
		return ""
	}
	return w.pods[pod].Path()
}

func ports(list string) string { return `,"runtimeConfig":{"portMappings":[` + list + `]}` }

func withPrev(pod string) string { return `,"prevResult":` + prev("1.1.0", pod) }

// must runs a verb that has to succeed.
func (w *world) must(command, pod, config string) string {
	w.t.Helper()
	code, out := w.call(command, pod, config)
	if code != 0 {
		w.t.Fatalf("%s %s: %d %s", command, pod, code, out)
	}
	return out
}

const web80 = `{"hostPort":80,"containerPort":80,"protocol":"tcp"},{"HostPort":5353,"ContainerPort":53,"Protocol":"UDP"}`

func TestHostPortsAnswer(t *testing.T) {
	w := newWorld(t)
	out := w.must("ADD", "web", ports(web80)+withPrev("web"))
	if out != prev("1.1.0", "web")+"\n" && out != prev("1.1.0", "web") {
		t.Errorf("the result was changed on its way:\n%s", out)
	}
	for _, tt := range []struct {
		name     string
		from     *netns.Handle
		network  string
		at, want string
	}{
		{"from outside, which sees the true client", w.out, "tcp", "10.20.30.62:80", "web 10.20.30.1"},
		{"by UDP", w.out, "udp", "10.20.30.62:5353", "web 10.20.30.1"},
		{"on the bridge's address", w.out, "tcp", "10.10.10.1:80", "web 10.20.30.1"},
		{"from another pod of the node", w.pods["other"], "tcp", "10.20.30.62:80", "web 10.10.10.3"},
		{"from the node itself", w.node, "tcp", "10.20.30.62:80", "web 10.20.30.62"},
		{"from the node by 127.0.0.1, another source because the pod could not answer that one", w.node, "tcp", "127.0.0.1:80", "web 10.10.10.1"},
		{"from the pod itself, another source for the same reason", w.pods["web"], "tcp", "10.20.30.62:80", "web 10.10.10.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := w.ask(tt.from, tt.network, tt.at); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.at, got, tt.want)
			}
		})
	}
	t.Run("127.0.0.1 of the node stays closed to the network", func(t *testing.T) {
		nstest.Sh(t, w.out, "ip route add 127.0.0.1/32 via 10.20.30.62 table 7; ip rule add to 127.0.0.1 table 7 pref 1; ip rule del pref 0; ip rule add table local pref 2")
		nstest.Sh(t, w.node, "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
		if got := w.ask(w.out, "tcp", "127.0.0.1:80"); strings.HasPrefix(got, "web") {
			t.Errorf("answered from outside: %q", got)
		}
	})
	w.must("CHECK", "web", ports(web80)+withPrev("web"))
	nstest.Sh(t, w.node, "nft list ruleset >/dev/null")
}

func TestDelLeavesNothing(t *testing.T) {
	for name, config := range map[string]string{
		"as libcni calls it":              ports(web80) + withPrev("web"),
		"without a previous result":       ports(web80),
		"without anything of the request": "",
		"with a changed request":          ports(`{"hostPort":81,"containerPort":80}`) + withPrev("web"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must("ADD", "other", ports(`{"hostPort":8080,"containerPort":80}`)+withPrev("other"))
			w.must("ADD", "web", ports(web80)+withPrev("web"))
			for range 3 {
				w.must("DEL", "web", config)
			}
			if got := w.ask(w.out, "tcp", "10.20.30.62:80"); !strings.Contains(got, "refused") {
				t.Errorf("port 80 after DEL: %q", got)
			}
			if got := w.ask(w.out, "tcp", "10.20.30.62:8080"); got != "other 10.20.30.1" {
				t.Errorf("the other pod's port: %q", got)
			}
			if rules := nstest.Sh(t, w.node, "nft list ruleset"); strings.Contains(rules, addrs["web"]) {
				t.Errorf("left of the pod:\n%s", rules)
			}
		})
	}
}

func TestConflicts(t *testing.T) {
	w := newWorld(t)
	w.must("ADD", "web", ports(`{"hostPort":80,"containerPort":80}`)+withPrev("web"))
	code, out := w.call("ADD", "other", ports(`{"hostPort":81,"containerPort":80},{"hostPort":80,"containerPort":80}`)+withPrev("other"))
	if code == 0 || !strings.Contains(out, `hostPort TCP 0.0.0.0:80 is taken by net/id-web/eth0 for 10.10.10.2:80`) {
		t.Errorf("a taken port: %d %s", code, out)
	}
	if got := w.ask(w.out, "tcp", "10.20.30.62:81"); !strings.Contains(got, "refused") {
		t.Errorf("half of a refused request is in force: %q", got)
	}
	w.must("ADD", "web", ports(`{"hostPort":80,"containerPort":80}`)+withPrev("web")) // repeated: no harm
	w.must("ADD", "other", ports(`{"hostPort":80,"containerPort":80,"hostIP":"10.10.10.1"}`)+withPrev("other"))
	if a, b := w.ask(w.out, "tcp", "10.10.10.1:80"), w.ask(w.out, "tcp", "10.20.30.62:80"); a != "other 10.20.30.1" || b != "web 10.20.30.1" {
		t.Errorf("the same port on two addresses: %q and %q", a, b)
	}
}

// TestOnePortForManyPods: what may stand side by side, and whose name is said where it may not.
func TestOnePortForManyPods(t *testing.T) {
	const any80 = "taken by net/id-web/eth0 for 10.10.10.2:80"
	for _, tt := range []struct{ name, first, second, want string }{
		{"the same port", `"hostPort":80`, `"hostPort":80`, "hostPort TCP 0.0.0.0:80 is " + any80},
		{"the same port, of the other family too", `"hostPort":80`, `"hostPort":80,"hostIP":"::"`, "hostPort TCP [::]:80 is taken by net/id-web/eth0 for [fd00:10::2]:80"},
		{"the same port of one address", `"hostPort":80,"hostIP":"10.20.30.62"`, `"hostPort":80,"hostIP":"10.20.30.62"`, "hostPort TCP 10.20.30.62:80 is " + any80},
		{"the same port of one IPv6 address", `"hostPort":80,"hostIP":"fd00:20::62"`, `"hostPort":80,"hostIP":"fd00:20::62"`, "hostPort TCP [fd00:20::62]:80 is taken by net/id-web/eth0 for [fd00:10::2]:80"},
		{"one address beside all others", `"hostPort":80`, `"hostPort":80,"hostIP":"10.20.30.62"`, ""},
		{"one IPv6 address beside all others", `"hostPort":80`, `"hostPort":80,"hostIP":"fd00:20::62"`, ""},
		{"two addresses", `"hostPort":80,"hostIP":"10.20.30.62"`, `"hostPort":80,"hostIP":"10.10.10.1"`, ""},
		{"two families", `"hostPort":80,"hostIP":"0.0.0.0"`, `"hostPort":80,"hostIP":"::"`, ""},
		{"two protocols", `"hostPort":80`, `"hostPort":80,"protocol":"udp"`, ""},
		{"TCP and SCTP", `"hostPort":80`, `"hostPort":80,"protocol":"sctp"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			both := func(pod string) string { return with6(pod, addrs[pod]+"/24", addrs6[pod]+"/64") }
			first, second := ports("{"+tt.first+`,"containerPort":80}`)+both("web"), ports("{"+tt.second+`,"containerPort":80}`)+both("other")
			w.must("ADD", "web", first)
			code, out := w.call("ADD", "other", second)
			switch {
			case tt.want == "" && code != 0:
				t.Errorf("%d %s, want both", code, out)
			case tt.want != "" && (code == 0 || !strings.Contains(out, tt.want) || !strings.Contains(out, `"code":102`)):
				t.Errorf("%d %s, want error 102, %s", code, out, tt.want)
			}
			w.must("CHECK", "web", first)
			w.must("DEL", "other", second)
			w.must("CHECK", "web", first)
		})
	}
}

// TestManyAtOnce: none is lost, also when the first of them all find that the tables are gone and make them anew at once.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	addMany := func(first int) {
		var wg sync.WaitGroup
		codes := make([]int, 16)
		for i := range codes {
			wg.Go(func() {
				pod := []string{"web", "other"}[i%2]
				codes[i], _ = w.call("ADD", fmt.Sprint(pod, "/", first+i), ports(fmt.Sprintf(`{"hostPort":%d,"containerPort":80}`, first+i))+withPrev(pod))
			})
		}
		wg.Wait()
		for i, code := range codes {
			if code != 0 {
				t.Errorf("ADD %d: exit %d", first+i, code)
			}
		}
	}
	addMany(8000)
	nstest.Sh(t, w.node, "nft flush ruleset")
	addMany(8016)
	for i := range 32 {
		if got, want := w.ask(w.out, "tcp", fmt.Sprintf("10.20.30.62:%d", 8000+i)), []string{"web", "other"}[i%2]+" 10.20.30.1"; got != want {
			t.Errorf("port %d: %q, want %q", 8000+i, got, want)
		}
	}
}

func TestCheckAndGC(t *testing.T) {
	w := newWorld(t)
	w.must("ADD", "web", ports(web80)+withPrev("web"))
	w.must("ADD", "other", ports(`{"hostPort":8080,"containerPort":80}`)+withPrev("other"))
	w.network = "elsewhere"
	w.must("GC", "", `,"cni.dev/valid-attachments":[]`) // another network's: not ours to judge
	w.network = "net"
	w.must("GC", "", `,"cni.dev/valid-attachments":[{"containerID":"id-web","ifname":"eth0"}]`)
	w.must("CHECK", "web", ports(web80)+withPrev("web"))
	if code, out := w.call("CHECK", "other", ports(`{"hostPort":8080,"containerPort":80}`)+withPrev("other")); code == 0 || !strings.Contains(out, "hostPort TCP 0.0.0.0:8080 -> 10.10.10.3:80 is not in the kernel") {
		t.Errorf("CHECK of what GC took: %d %s", code, out)
	}
}

// TestCheckNamesTheDifference: of each thing that ADD makes.
func TestCheckNamesTheDifference(t *testing.T) {
	for name, tt := range map[string]struct{ harm, want string }{
		"a chain without rules":      {"nft flush chain ip l3edge_hostports prerouting", "its rules are gone or it has been changed"},
		"no tables":                  {"nft flush ruleset", "its rules are gone or it has been changed"},
		"a port that is gone":        {`nft delete element ip l3edge_hostports anyip { tcp . 80 }`, "hostPort TCP 0.0.0.0:80 -> 10.10.10.2:80 is not in the kernel"},
		"a port that leads away":     {`nft delete element ip l3edge_hostports anyip { tcp . 80 }; nft 'add element ip l3edge_hostports anyip { tcp . 80 comment "net/id-web/eth0" : 10.10.10.3 . 80 }'`, "leads to 10.10.10.3:80"},
		"a port of somebody else":    {`nft delete element ip l3edge_hostports anyip { tcp . 80 }; nft 'add element ip l3edge_hostports anyip { tcp . 80 comment "thief" : 10.10.10.2 . 80 }'`, "is held by thief"},
		"no way to itself":           {`nft flush set ip l3edge_hostports self`, "pod 10.10.10.2 is not in set self"},
		"127.0.0.1 is closed for it": {"echo 0 > /proc/sys/net/ipv4/conf/docker0/route_localnet", "net/ipv4/conf/docker0/route_localnet is 0"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must("ADD", "web", ports(web80)+withPrev("web"))
			w.must("CHECK", "web", ports(web80)+withPrev("web"))
			nstest.Sh(t, w.node, tt.harm)
			if code, out := w.call("CHECK", "web", ports(web80)+withPrev("web")); code == 0 || !strings.Contains(out, tt.want) || !strings.Contains(out, `"code":100`) {
				t.Errorf("%d %s, want error 100, %s", code, out, tt.want)
			}
		})
	}
}

// TestAddMendsTheTable: others may have had the ruleset in their hands since the last ADD.
func TestAddMendsTheTable(t *testing.T) {
	for name, harm := range map[string]string{
		"a chain was emptied":    "nft flush chain ip l3edge_hostports prerouting",
		"the rules were flushed": "nft flush table ip l3edge_hostports",
		"a rule was added":       "nft insert rule ip l3edge_hostports prerouting drop",
		"the table was deleted":  "nft delete table ip l3edge_hostports",
		"all was deleted":        "nft flush ruleset",
		"a map is of another version": `nft -f - <<E
delete table ip l3edge_hostports
table ip l3edge_hostports {
	map anyip { type inet_service : ipv4_addr; elements = { 8080 : 10.10.10.3 } }
}
E`,
		"a map is of another version, behind the rules of this one": `nft list table ip l3edge_hostports > $$.nft && nft delete table ip l3edge_hostports
			sed -i '/^\tset self/,/^\t}/s/type .*/type ipv4_addr . inet_service/; /^\tset self/,/^\t}/{/elements/d}; /@self/d' $$.nft; nft -f $$.nft; rm $$.nft`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must("ADD", "other", ports(`{"hostPort":8080,"containerPort":80}`)+withPrev("other"))
			nstest.Sh(t, w.node, harm)
			w.must("ADD", "web", ports(web80)+withPrev("web"))
			if got := w.ask(w.out, "tcp", "10.20.30.62:80"); got != "web 10.20.30.1" {
				t.Errorf("the new pod's port: %q", got)
			}
			if got := w.ask(w.out, "tcp", "10.20.30.62:8080"); got != "other 10.20.30.1" {
				t.Errorf("the port of a pod from before: %q", got)
			}
			w.must("CHECK", "web", ports(web80)+withPrev("web"))
			w.must("CHECK", "other", ports(`{"hostPort":8080,"containerPort":80}`)+withPrev("other"))
		})
	}
}

// answer makes a portald at the socket that answers one request after the other.
func answer(t *testing.T, sock string, answers ...string) {
	t.Helper()
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		for _, a := range answers {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 512))
			_, _ = io.WriteString(c, "HTTP/1.0 "+a)
			c.Close()
		}
	}()
}

const (
	unsynced = "503 Service Unavailable\r\n\r\nnothing programmed yet\n"
	healthy  = "200 OK\r\n\r\nok\n"
)

// TestStatusMendsTheTables: a runtime asks for it every few seconds, so that ports do not stay lost until the next ADD.
func TestStatusMendsTheTables(t *testing.T) {
	w := newWorld(t)
	both := with6("web", addrs["web"]+"/24", addrs6["web"]+"/64")
	w.must("ADD", "web", ports(web80)+both)
	nstest.Sh(t, w.node, "nft flush ruleset")
	if code, out := w.call("CHECK", "web", ports(web80)+both); code == 0 || !strings.Contains(out, "has been changed") {
		t.Errorf("CHECK of a flushed ruleset: %d %s", code, out)
	}
	w.must("STATUS", "", "")
	w.must("CHECK", "web", ports(web80)+both)
	if got := w.ask(w.out, "tcp", "10.20.30.62:80"); got != "web 10.20.30.1" {
		t.Errorf("the port: %q", got)
	}
}

func TestStatusAsksPortald(t *testing.T) {
	for _, tt := range []struct {
		name    string
		named   bool // the configuration names portald's socket
		answers []string
		prepare string // on the node
		want    string // of the error 50; none: ready
	}{
		{"a portald that has not synced", true, []string{unsynced}, "", "nothing programmed yet"},
		{"a portald that has", true, []string{healthy}, "", ""},
		{"none, where one is expected: the node has just started", true, nil, "", "no portald answers"},
		{"none where one is expected, which has programmed services before", true, nil, "nft add table ip l3edge", ""},
		{"none, where nobody expects one", false, nil, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.prepare != "" {
				nstest.Sh(t, w.node, tt.prepare)
			}
			sock := filepath.Join(t.TempDir(), "portald.sock")
			if tt.named {
				w.more = fmt.Sprintf(`,"portaldSocket":%q`, sock)
			}
			if tt.answers != nil {
				answer(t, sock, tt.answers...)
			}
			code, out := w.call("STATUS", "", "")
			if tt.want == "" {
				if code != 0 {
					t.Errorf("%d %s, want ready", code, out)
				}
				return
			}
			var e struct{ Code int }
			if err := json.Unmarshal([]byte(out), &e); code == 0 || err != nil || e.Code != 50 || !strings.Contains(out, tt.want) {
				t.Errorf("%d %s, want error 50, %s", code, out, tt.want)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct{ config, want string }{
		"all mistakes at once": {ports(`{"hostPort":70000,"containerPort":80},{"hostPort":80},{"hostPort":81,"containerPort":80,"protocol":"icmp"},{"hostPort":82,"containerPort":80,"hostIP":"here"}`) + withPrev("web"),
			`runtimeConfig.portMappings[0].hostPort: 70000 is not a port\nruntimeConfig.portMappings[1].containerPort: 0 is not a port\nruntimeConfig.portMappings[2].protocol: \"icmp\" is not tcp, udp or sctp\nruntimeConfig.portMappings[3].hostIP: \"here\" is not an address`},
		"no plugin before it":            {ports(web80), "prevResult: missing"},
		"one port for two":               {ports(`{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81}`) + withPrev("web"), "asked for twice, for ports 80 and 81"},
		"an address of the other family": {ports(`{"hostPort":80,"containerPort":80,"hostIP":"fd00::1"}`) + withPrev("web"), "no address of the family of fd00::1"},
		"no list":                        {`,"runtimeConfig":{"portMappings":7}` + withPrev("web"), "runtimeConfig.portMappings"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, out := w.call("ADD", "web", tt.config); code == 0 || !strings.Contains(out, tt.want) {
				t.Errorf("exit %d, %s\nwant %s", code, out, tt.want)
			}
		})
	}
	if rules := nstest.Sh(t, w.node, "nft list ruleset"); strings.Contains(rules, "l3edge") {
		t.Errorf("a refused request left something:\n%s", rules)
	}
}

// TestNoPortsNoWork: most pods have no hostPorts, and pay for nothing.
func TestNoPortsNoWork(t *testing.T) {
	w := newWorld(t)
	for _, config := range []string{"", ports(""), ports(`{"containerPort":9999}`), `,"runtimeConfig":{"portMappings":null}`} {
		w.must("ADD", "web", config+withPrev("web"))
		w.must("CHECK", "web", config+withPrev("web"))
		w.must("DEL", "web", config+withPrev("web"))
	}
	if rules := nstest.Sh(t, w.node, "nft list ruleset"); rules != "" {
		t.Errorf("something was programmed:\n%s", rules)
	}
}
