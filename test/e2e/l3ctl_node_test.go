// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// ctl runs l3ctl there and returns what it prints and its exit status.
func ctl(t *testing.T, p *place.Place, args ...string) (string, int) {
	t.Helper()
	out, err := p.Run("l3ctl", args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out + err.Error(), exit.ExitCode()
	}
	must(t, err)
	return out, 0
}

// wants runs l3ctl there and requires an exit status and everything that shall be in its output.
func wants(t *testing.T, p *place.Place, status int, command string, wanted ...string) string {
	t.Helper()
	out, got := ctl(t, p, strings.Fields(command)...)
	if got != status {
		t.Errorf("l3ctl %s: status %d, want %d\n%s", command, got, status, out)
	}
	for _, w := range wanted {
		if !strings.Contains(out, w) {
			t.Errorf("l3ctl %s: %q is not in\n%s", command, w, out)
		}
	}
	return out
}

// onNode writes a file on a host, with its directories.
func onNode(t *testing.T, h *lab.Host, path, text string) {
	t.Helper()
	at := fmt.Sprintf("/proc/%d/root%s", h.Pid, path)
	must(t, os.MkdirAll(at[:strings.LastIndex(at, "/")], 0o755))
	must(t, os.WriteFile(at, []byte(text), 0o644))
}

// What l3ctl says of a node is so: one lab for all of it.
func TestL3ctlOnANode(t *testing.T) {
	l := labtest.Up(t, lab.Embedded)
	must(t, l.StartEverything())
	for _, h := range l.Nodes() {
		labtest.Within(t, 10*time.Second, "all is well on "+h.Name, func() error {
			if out, status := ctl(t, h.Place, "status"); status != 0 || !strings.Contains(out, "3 services with 6 endpoints") {
				return errors.New(out)
			}
			return nil
		})
	}
	t.Run("ipam", func(t *testing.T) { testIPAM(t, l) })
	t.Run("map", func(t *testing.T) { testMap(t, l) })
	t.Run("status", func(t *testing.T) { testStatus(t, l) })
	t.Run("whois", func(t *testing.T) { testWhois(t, l) })
	t.Run("doctor", func(t *testing.T) { testDoctor(t, l) })
	t.Run("doctor, a source check", func(t *testing.T) { testDoctorBinding(t, l) })
	t.Run("doctor, rules of others", func(t *testing.T) { testDoctorOthers(t, l) })
	t.Run("doctor, userspace", func(t *testing.T) { testDoctorUserspace(t, l) })
	t.Run("trace", func(t *testing.T) { testTrace(t, l) })
	t.Run("capture", func(t *testing.T) { testCapture(t, l) })
}

// What trace predicts is what is seen, for every kind of way, to every backend.
func testTrace(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion1"]
	second := addPod(t, l, "kubminion1", "second", lab.Container{Name: "web8080", Port: 8080, HostPort: 8088})
	wants(t, h.Place, 0, "whois 10.20.30.62:8088", "port 8088 of kubminion1 is published for pod second, port 8080")
	web := l.Services["webfrontend"]
	web.Endpoints = slices.DeleteFunc(web.Endpoints, func(e topology.Endpoint) bool { return e.Node != "kubminion1" && e.Node != "kubminion3" })
	must(t, l.PublishService(web))
	for _, h := range l.Nodes() {
		labtest.Within(t, 5*time.Second, "two endpoints on "+h.Name, func() error {
			if out, _ := ctl(t, h.Place, "whois", vip); strings.Count(out, "endpoint: ") != 2 {
				return errors.New(out)
			}
			return nil
		})
	}
	run(t, l.MLS.Place, "ip", "route", "add", "10.100.0.0/16", "via", "10.20.30.62")
	for _, row := range []struct {
		what, from, to string
		ends           []string // each of them is to be seen
	}{
		{"pod to pod of the same node", "kubminion1/web8080-1", "second:8080", []string{"passes the frame from port to port"}},
		{"pod to pod of another node", "kubminion1/web8080-1", "10.10.30.2:8080", []string{"eth0 of pod web8080-3"}},
		{"pod to service, nftables", "kubminion1/web8080-1", "webfrontend", []string{"the way to 10.10.10.2:8080", "the way to 10.10.30.2:8080"}},
		{"pod to service of the same bridge, nftables", "second", "webfrontend", []string{"the way to 10.10.10.2:8080"}},
		{"pod to service, userspace", "kubminion4/web8080-4", "webfrontend", []string{"the way to 10.10.10.2:8080", "the way to 10.10.30.2:8080"}},
		{"node to service, nftables", "kubminion1", vip, []string{"the way to 10.10.10.2:8080", "the way to 10.10.30.2:8080"}},
		{"node to service, userspace", "kubminion4", vip, []string{"the way to 10.10.10.2:8080"}},
		{"outside to service", "outside", vip, []string{"the way to 10.10.10.2:8080", "the way to 10.10.30.2:8080"}},
		{"outside to a host port", "outside", "10.20.30.62:8088", []string{"eth0 of pod second"}},
		{"another node's pod to a host port", "kubminion2/web8080-2", "10.20.30.62:8088", []string{"eth0 of pod second"}},
		{"outside to pod", "outside", "10.10.20.2:8080", []string{"eth0 of pod web8080-2"}},
		{"pod to no service", "second", "10.100.1.1:80", []string{"the node refuses it"}},
	} {
		t.Run(row.what, func(t *testing.T) {
			left := map[string]bool{}
			for _, e := range row.ends {
				left[e] = true
			}
			for range 60 { // until chance has chosen every backend
				out := wants(t, h.Place, 0, "trace --lab --probe "+row.from+" "+row.to, "as predicted")
				for e := range left {
					if strings.Contains(out, e) {
						delete(left, e)
					}
				}
				if len(left) == 0 || t.Failed() {
					return
				}
			}
			t.Errorf("never seen: %v", left)
		})
	}
	wants(t, h.Place, 0, "trace web8080-1 webfrontend", "the destination becomes 10.10.10.2:8080: 10.100.87.105 is on no interface anywhere")
	wants(t, h.Place, 0, "trace --probe second 10.10.30.2:8080", "the connection came up, as predicted", "10.20.30.1, which was not seen from here, decides")
	wants(t, h.Place, 1, "trace --probe 10.10.30.2 10.10.10.2:8080", "is on no host that was seen")
	wants(t, h.Place, 1, "trace web8080-1 nothing:80", `TO: "nothing" is no service, pod, host or address that was seen`)
	wants(t, h.Place, 2, "trace web8080-1 10.100.1.1:80", "no service has this address of the portal net", "predicted: it is refused")
	run(t, l.MLS.Place, "iptables", "-I", "FORWARD", "-d", "10.10.30.0/24", "-j", "DROP")
	wants(t, h.Place, 2, "trace --lab --probe web8080-1 10.10.30.2:8080", "they part at br192 of mls", "NOT SEEN")
	run(t, l.MLS.Place, "iptables", "-D", "FORWARD", "-d", "10.10.30.0/24", "-j", "DROP")
	must(t, second.Delete())
}

// A capture opens in tshark, with all four interfaces and both legs of one connection, whoever makes the second.
func testCapture(t *testing.T, l *lab.Lab) {
	for _, row := range []struct{ host, pod, client string }{
		{"kubminion1", "web8080-1", "10.10.10.2"}, // nftables: the second leg is the pod's, too
		{"kubminion4", "web8080-4", "192.168.10.65"},
	} {
		h := l.Hosts[row.host]
		p, err := h.Start("capture", "l3ctl", "capture", row.pod, "--service=webfrontend", "--file=/run/c.pcapng", "--duration=30s")
		must(t, err)
		client := h.PodNamed(row.pod)
		labtest.Within(t, 10*time.Second, "a second leg on the uplink", func() error {
			if err := client.Reaches(vip); err != nil {
				return err
			}
			text, err := os.ReadFile(p.LogPath)
			if err == nil && !regexp.MustCompile(`uplink ens18 +#\d+ +IP `+regexp.QuoteMeta(row.client)+`\.\d+ > 10\.10\.\d+\.2\.8080`).Match(text) {
				err = errors.New(string(text))
			}
			return err
		})
		must(t, p.Stop())
		out := run(t, h.Place, "tshark", "-r", "/run/c.pcapng", "-T", "fields", "-e", "frame.comment", "-e", "frame.interface_name", "-e", "ip.src", "-e", "ip.dst", "-e", "tcp.dstport")
		legs := map[string]map[string]bool{}
		for line := range strings.Lines(out) {
			f := strings.Split(strings.TrimSpace(line), "\t")
			if len(f) != 5 {
				t.Fatalf("tshark says %q", line)
			}
			if legs[f[0]] == nil {
				legs[f[0]] = map[string]bool{}
			}
			point, _, _ := strings.Cut(f[1], " ")
			legs[f[0]][point+" "+f[2]+" > "+f[3]+":"+f[4]] = true
		}
		whole := func(seen map[string]bool) bool {
			pod := client.IP.String() + " > " + vip
			return seen["pod "+pod] && seen["veth "+pod] && (seen["uplink "+row.client+" > 10.10.30.2:8080"] || seen["uplink "+row.client+" > 10.10.10.2:8080"]) &&
				slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(s string) bool { return strings.HasPrefix(s, "bridge ") })
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(legs)), whole) {
			t.Errorf("%s: no connection has both its legs at all points:\n%s", row.host, out)
		}
	}
	wants(t, l.Hosts["kubminion1"].Place, 1, "capture nobody", `no living pod is called "nobody"`)
	wants(t, l.Hosts["kubminion1"].Place, 1, "capture web8080-1 --point=moon", `--point[0]: "moon" is none of pod, veth, bridge, uplink`)
}

// The map shows the article's picture, as it is.
func testMap(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion1"]
	wants(t, h.Place, 0, "map --lab", "mls  (AS 64512, 4 of 4 sessions up)\n├── 10.20.30.0/24, gateway 10.20.30.1\n│   ├── kubminion1  10.20.30.62  [session up: 3 in, 1 out]",
		"└── web8080-3  10.10.30.2  {pause, web8080}", "service webfrontend  10.100.87.105:80  nftables\n├── 10.10.10.2:8080 web8080-1")
	wants(t, h.Place, 0, "map", "mls  (AS 64512, as kubminion1 sees it)", "known by routes only", "pods 10.10.40.0/24")
	wants(t, h.Place, 0, "map --lab --dot", `[label="kubminion3\n192.168.10.64"];`)
	wants(t, h.Place, 0, "map --lab --mermaid", `"kubminion3<br>192.168.10.64"`)
	wants(t, h.Place, 0, "map --lab --svg=/run/map.svg")
	if out := run(t, h.Place, "cat", "/run/map.svg"); !strings.Contains(out, ">kubminion4</text>") || !strings.Contains(out, "</svg>") {
		t.Errorf("the picture is\n%s", out)
	}
	// Views that were written elsewhere draw the same.
	run(t, h.Place, "sh", "-c", "l3ctl observe > /run/1.json")
	wants(t, l.Hosts["outside"].Place, 1, "map --from /run/1.json", "--from: open /run/1.json: no such file")
	wants(t, h.Place, 0, "map --from /run/1.json", "kubminion1  10.20.30.62  [session up: 3 in, 1 out]")
}

// Status is quiet when all is well, says in words what is not, and changes its exit status.
func testStatus(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion2"]
	wants(t, h.Place, 0, "status", "node     kubminion2, 10.20.30.63 on ens18", "10.10.20.0/24: 1 of 253", "session  mls (AS 64512) established", "3 services with 6 endpoints", "all is well")
	wants(t, h.Place, 0, "status --lab", "kubminion4  10.10.40.0/24  1/253  1/1 up", "mls")
	wants(t, h.Place, 0, "status -o json", `"healthy": true`)
	h.Portald.Kill()
	h.Routed.Kill()
	wants(t, h.Place, 2, "status", "BROKEN   routed: ", "fix:   systemctl start routed", "warning  portald: ", "services stay as they were last programmed")
	wants(t, h.Place, 2, "status --lab", "kubminion2\nBROKEN   routed: ")
	must(t, h.StartRouted())
	must(t, h.StartPortald())
	labtest.Within(t, 10*time.Second, "all is well again", func() error {
		if out, status := ctl(t, h.Place, "status"); status != 0 {
			return errors.New(out)
		}
		return nil
	})
	wants(t, l.Hosts["outside"].Place, 2, "status", "nothing of l3edge is on this host")
	wants(t, h.Place, 0, "bundle --file=/run/b.tgz", "/run/b.tgz")
	must(t, h.WriteFile("/etc/l3edge/routed.yaml", "peers: []\npassword: hunter2\n"))
	wants(t, h.Place, 1, "bundle --file=/run/b.tgz", "file exists")
	wants(t, h.Place, 0, "bundle --file=/run/c.tgz")
	out := run(t, h.Place, "tar", "xzOf", "/run/c.tgz", "l3edge/files/etc/l3edge/routed.yaml")
	if !strings.Contains(out, "password: (removed)") {
		t.Errorf("the bundle says %s", out)
	}
}

// Whois knows a service, a pod, a pod that is gone, a node and nobody.
func testWhois(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion1"]
	gone := addPod(t, l, "kubminion1", "gone")
	wants(t, h.Place, 0, "whois "+gone.IP.String(), "is pod gone on kubminion1", "veth: "+gone.Veth, "shares its namespace: pause (pid ")
	must(t, gone.Delete())
	wants(t, h.Place, 0, "whois "+gone.IP.String(), "is of the pods of kubminion1 (10.10.10.0/24), and no pod has it now")
	wants(t, h.Place, 0, "whois "+vip, "is service webfrontend, port 80", "endpoint: 10.10.10.2:8080, pod web8080-1 on kubminion1", "nft get element ip l3edge svc { 10.100.87.105 . tcp . 80 }")
	if out := run(t, h.Place, "nft", "get", "element", "ip", "l3edge", "svc", "{ 10.100.87.105 . tcp . 80 }"); !strings.Contains(out, "10.100.87.105") {
		t.Errorf("the element that whois names is %s", out)
	}
	wants(t, h.Place, 0, "whois --lab 10.10.30.2", "is pod web8080-3 on kubminion3", "way from kubminion1: 10.10.30.0/24 via 10.20.30.1 dev ens18", "way from mls: 10.10.30.0/24 via 192.168.10.64 dev br192")
	wants(t, h.Place, 0, "whois --lab 192.168.10.65", "is ens18 of kubminion4")
	wants(t, h.Place, 2, "whois 8.8.8.8", "is nothing of ours")
}

// Doctor finds each of these, with its cause, and --repair mends it.
func testDoctor(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion3"]
	pod := addPod(t, l, "kubminion3", "ill", lab.Container{Name: "web8080", Port: 8080, HostPort: 8088})
	wants(t, h.Place, 0, "doctor", "all is well")
	sh := func(p *place.Place, script string) func() { return func() { run(t, p, "sh", "-c", script) } }
	for _, row := range []struct {
		what  string
		harm  func()
		found string // empty: a daemon may have mended it before we look
		done  string
	}{
		{"a veth detached", sh(h.Place, "ip link set "+pod.Veth+" nomaster"), "BROKEN   pod ill: its veth " + pod.Veth + " is no port of a bridge", "make " + pod.Veth + " a port of docker0: done"},
		{"the gateway's address removed", sh(h.Place, "ip addr del 10.10.30.1/24 dev docker0"), "its gateway 10.10.30.1 is not on docker0", "add 10.10.30.1/24 to docker0: done"},
		{"a pod's address removed", sh(pod.Place, "ip addr flush dev eth0"), "its address " + pod.IP.String() + " is not on eth0", "to eth0 in the pod: done"},
		{"a pod's route deleted", sh(pod.Place, "ip route del default"), "its route default via 10.10.30.1 is missing", "add the route to 0.0.0.0/0 in the pod: done"},
		{"forwarding off", sh(h.Place, "sysctl -qw net.ipv4.ip_forward=0"), "net/ipv4/ip_forward is 0", "set net/ipv4/ip_forward to 1: done"},
		{"bridged packets past the rules", sh(h.Place, "sysctl -qw net.bridge.bridge-nf-call-iptables=0"), "bridge-nf-call-iptables is 0", "to 1: done"},
		{"the ruleset flushed", sh(h.Place, "nft flush ruleset"), "CHECK of portal: ", "ADD of portal once more: done"},
		{"a route deleted", sh(h.Place, "ip route del 10.10.10.0/24 proto 103"), "", ""},
		{"a stale lease", func() {
			dir := "/run/l3edge/leases/l3edge"
			run(t, h.Place, "sh", "-c", `echo '{"containerID":"x","ifname":"eth0"}' > `+dir+"/by-owner/x@eth0 && ln "+dir+"/by-owner/x@eth0 "+dir+"/10.10.30.200")
		}, "warning  lease 10.10.30.200: its container has no interface", "release 10.10.30.200: done"},
	} {
		t.Run(row.what, func(t *testing.T) {
			row.harm()
			status := 2
			if strings.HasPrefix(row.found, "warning") {
				status = 0
			}
			if row.found != "" {
				wants(t, h.Place, status, "doctor", row.found, "cause: ", "fix: ")
			}
			wants(t, h.Place, 0, "doctor --repair", row.done)
			wants(t, h.Place, 0, "doctor", "all is well")
			must(t, l.Hosts["kubminion1"].Reaches(on(pod.IP, 8080)))
			must(t, pod.Reaches(vip))
			must(t, l.Hosts["outside"].Reaches("192.168.10.64:8088"))
		})
	}
	must(t, pod.Delete())
	run(t, h.Place, "sh", "-c", "sysctl -qw net.ipv4.conf.docker0.route_localnet=1; nft flush ruleset") // with no host port left
	wants(t, h.Place, 0, "doctor --repair", "set net/ipv4/conf/docker0/route_localnet to 0: done", "all is well now")
}

// A port whose source check somebody has flushed is bound again.
func testDoctorBinding(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion4"]
	list := "/etc/cni/net.d/10-l3edge.conflist"
	run(t, h.Place, "sh", "-c", `cp `+list+` /tmp/before && sed -i 's/"type": *"bridge-l3"/&,"sourceCheck":true/' `+list)
	pod := addPod(t, l, "kubminion4", "bound", lab.Container{Name: "web8080", Port: 8080})
	wants(t, h.Place, 0, "doctor", "all is well")
	for _, harm := range []string{"nft delete table bridge l3edge_pods", "nft flush chain bridge l3edge_pods prerouting", "nft flush set bridge l3edge_pods strict"} {
		run(t, h.Place, "sh", "-c", harm)
		wants(t, h.Place, 2, "doctor", "BROKEN   pod bound: its veth "+pod.Veth+" is not bound to its addresses: ", "cause: ", "fix: ")
		wants(t, h.Place, 0, "doctor --repair", "repair: bind "+pod.Veth+" to its pod's addresses: done")
		wants(t, h.Place, 0, "doctor", "all is well")
	}
	must(t, l.Hosts["kubminion1"].Reaches(on(pod.IP, 8080)))
	must(t, pod.Delete())
	run(t, h.Place, "mv", "/tmp/before", list)
}

// What portmap and ipMasq have left for a container that is gone is named, with what removes it; nothing else of theirs is.
func testDoctorOthers(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion2"]
	const rules = `*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-DN-01 - [0:0]
:CNI-02 - [0:0]
:CNI-DN-03 - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -s 10.10.20.99/32 -m comment --comment "name: \"l3edge\" id: \"gone\"" -j CNI-02
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"l3edge\" id: \"gone\"" -m multiport --dports 8099 -j CNI-DN-01
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"l3edge\" id: \"web8080-2\"" -m multiport --dports 8098 -j CNI-DN-03
-A CNI-DN-01 -p tcp -m tcp --dport 8099 -j DNAT --to-destination 10.10.20.99:80
COMMIT
`
	onNode(t, h, "/tmp/rules", rules)
	run(t, h.Place, "iptables-restore", "--noflush", "/tmp/rules")
	run(t, h.Place, "sh", "-c", "nft add table ip cni_hostport; nft add chain ip cni_hostport hostports; nft add rule ip cni_hostport hostports tcp dport 8097 dnat to 10.10.20.99:80 comment '\"gone\"'")
	out := wants(t, h.Place, 2, "doctor", "BROKEN   cni: iptables nat: a rule of the reference plugins leads to chain CNI-DN-01 for container gone of network l3edge", "chain CNI-02", "warning  cni: nft ip cni_hostport: ")
	if strings.Contains(out, "CNI-DN-03") {
		t.Errorf("a living pod's chain is named:\n%s", out)
	}
	for _, m := range regexp.MustCompile(`fix: +(?:if no other runtime has that container: )?((?:iptables|nft) .*)`).FindAllStringSubmatch(out, -1) {
		run(t, h.Place, "sh", "-c", m[1])
	}
	wants(t, h.Place, 0, "doctor", "all is well")
	run(t, h.Place, "sh", "-c", "iptables -t nat -F CNI-HOSTPORT-DNAT; iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT; iptables -t nat -X CNI-HOSTPORT-DNAT; iptables -t nat -X CNI-DN-03; nft delete table ip cni_hostport")
}

// In userspace mode portald puts the 2015 chains back after iptables -F, and doctor sees both.
func testDoctorUserspace(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion4"]
	h.Portald.Kill()
	must(t, h.StartPortald("--mode=userspace", "--resync=1s"))
	labtest.Within(t, 5*time.Second, "portals", func() error {
		if out, _ := ctl(t, h.Place, "whois", vip); !strings.Contains(out, "mode: userspace") {
			return errors.New(out)
		}
		return h.Reaches(vip)
	})
	out := wants(t, h.Place, 0, "whois "+vip, "mode: userspace", "carried: ", ", up, ", "KUBE-PORTALS-CONTAINER -d 10.100.87.105/32 -p tcp --dport 80 -j REDIRECT --to-ports ")
	_, rest, _ := strings.Cut(out, "proxy port: ")
	port, _, _ := strings.Cut(rest, " ")
	wants(t, h.Place, 0, "whois 192.168.10.65:"+port, "port "+port+" of kubminion4 is portald's for webfrontend TCP 10.100.87.105:80")
	run(t, h.Place, "iptables", "-t", "nat", "-F")
	wants(t, h.Place, 0, "doctor --repair")
	must(t, h.Reaches(vip))
}

// The leases are shown, taken over from host-local, compared with what lives, and given back.
func testIPAM(t *testing.T, l *lab.Lab) {
	h := l.Hosts["kubminion1"]
	wants(t, h.Place, 0, "ipam show", "10.10.10.0/24: 1 of 253 addresses in use", "10.10.10.2  default/web8080-1")
	wants(t, h.Place, 0, "ipam check", "every lease has its pod")
	for name, text := range map[string]string{
		"10.10.10.2": "somebody\r\neth0", "10.10.10.77": "old\r\neth0", "10.10.10.78": "web8080-1\r\neth0", "last_reserved_ip.0": "10.10.10.78", "lock": "",
	} {
		onNode(t, h, "/var/lib/cni/networks/l3edge/"+name, text)
	}
	wants(t, h.Place, 2, "ipam import-host-local --dry-run", "10.10.10.77  container old", "would be taken over")
	conflict := "CONFLICT: 10.10.10.2 is leased to pod default/web8080-1 (container web8080-1)"
	wants(t, h.Place, 2, "ipam import-host-local", conflict, "10.10.10.78  default/web8080-1", "the runtime knows no such container")
	wants(t, h.Place, 2, "ipam import-host-local", conflict, "10.10.10.77  container old       is ours already")
	wants(t, h.Place, 2, "ipam check", "10.10.10.77 (no pod known, container old): its container has no interface")
	wants(t, h.Place, 1, "ipam release 10.10.10.78", "default/web8080-1 still uses it")
	wants(t, h.Place, 0, "ipam release 10.10.10.77", "10.10.10.77 of old is free")
	wants(t, h.Place, 0, "ipam release --force 10.10.10.78", "is free")
	wants(t, h.Place, 1, "ipam release 10.10.10.77", "no network of this node has leased it")
	must(t, os.RemoveAll(fmt.Sprintf("/proc/%d/root/var/lib/cni/networks/l3edge", h.Pid)))
	wants(t, h.Place, 0, "ipam check")
	for name, text := range map[string]string{"10.10.10.79": "gone\r\neth0", "10.10.10.80": ""} { // of host-local, and not taken over
		onNode(t, h, "/var/lib/cni/networks/l3edge/"+name, text)
	}
	wants(t, h.Place, 2, "ipam check", "10.10.10.79 (no pod known, container gone): its container, which had it from host-local", "10.10.10.80 (no pod known, container ?): its file names no container")
	wants(t, h.Place, 1, "ipam release 10.10.10.80", "say --force when no pod has the address")
	wants(t, h.Place, 0, "ipam release --force 10.10.10.80")
	wants(t, h.Place, 0, "doctor --repair", "release 10.10.10.79: done")
	wants(t, h.Place, 0, "ipam check")
	onNode(t, h, "/var/lib/cni/networks/before/10.10.10.81", "gone\r\neth0") // of a network that has had another name
	onNode(t, h, "/var/lib/cni/networks/before/10.99.0.81", "gone\r\neth0")
	wants(t, h.Place, 0, "doctor --repair", "warning  lease 10.10.10.81: ", "host-local wrote it for network before")
	wants(t, h.Place, 0, "ipam release 10.10.10.81", "is free")
	wants(t, h.Place, 0, "ipam check")
	// Before a configuration list of ours is there: on a host that has none.
	o := l.Hosts["kubmasta"]
	onNode(t, o, "/var/lib/cni/networks/mynet/10.88.1.2", "a\r\neth0")
	onNode(t, o, "/var/lib/cni/networks/mynet/10.88.1.3", "")
	wants(t, o.Place, 1, "ipam import-host-local", "say --network, the name that yours will have; host-local holds addresses of mynet (2)")
	for _, want := range []string{"taken over", "is ours already"} {
		wants(t, o.Place, 2, "ipam import-host-local --network=l3edge --from=mynet", "10.88.1.2  container a", want, "10.88.1.3  -", "NOT TAKEN OVER: the file is empty")
	}
}
