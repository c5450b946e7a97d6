// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// TestMain also plays portald itself, so that tests can run it as a process in a namespace.
func TestMain(m *testing.M) {
	if os.Getenv("PORTALD_TEST_RUN") != "" {
		main()
		os.Exit(0)
	}
	nstest.Main(m)
}

// world is the article's lab in small: a node with a bridge docker0, two pods on it, and one pod behind another node.
//
//	client 10.10.10.2 ─┐
//	near   10.10.10.3 ─┴ docker0 10.10.10.1 [node] ens18 10.20.30.62 ── ens18 10.20.30.63 [other, also pod 10.10.20.4]
type world struct {
	t                         *testing.T
	node, client, near, other *netns.Handle
	dir                       string // manifests
	run                       string // socket, node file, proxy ports
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, node: nstest.New(t), client: nstest.New(t), near: nstest.New(t), other: nstest.New(t), dir: t.TempDir(), run: t.TempDir()}
	nstest.Veth(t, w.node, "vclient", "", w.client, "eth0", "10.10.10.2/24")
	nstest.Veth(t, w.node, "vnear", "", w.near, "eth0", "10.10.10.3/24")
	nstest.Veth(t, w.node, "ens18", "10.20.30.62/24", w.other, "ens18", "10.20.30.63/24")
	nstest.Sh(t, w.node, `ip link add docker0 type bridge
ip addr add 10.10.10.1/24 dev docker0
ip link set docker0 up
for v in vclient vnear; do ip link set $v master docker0; ip link set $v type bridge_slave hairpin on; done
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
ip route add default via 10.20.30.63`)
	for _, pod := range []*netns.Handle{w.client, w.near} {
		nstest.Sh(t, pod, `ip route add default via 10.10.10.1`)
	}
	nstest.Sh(t, w.other, `ip addr add 10.10.20.4/32 dev lo
ip route add 10.10.10.0/24 via 10.20.30.62`)
	n := node.Node{
		Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")},
		ClusterPrefixes: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16")},
		Addresses:       []netip.Addr{netip.MustParseAddr("10.20.30.62")}, Uplink: "ens18", MTU: 1500,
	}
	if err := nodefile.Write(filepath.Join(w.run, "node.json"), n); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) args(more ...string) []string {
	return append([]string{
		"--services=" + w.dir, "--node-file=" + filepath.Join(w.run, "node.json"),
		"--socket=" + w.socket(), "--ports-file=" + filepath.Join(w.run, "proxy-ports.json"),
		"--remember=" + filepath.Join(w.run, "manifests"),
	}, more...)
}

func (w *world) socket() string { return filepath.Join(w.run, "portald.sock") }

// portald is one running process.
type portald struct {
	w   *world
	cmd *exec.Cmd
	log *lines
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func (w *world) start(more ...string) *portald {
	w.t.Helper()
	p := &portald{w: w, log: new(lines)}
	nstest.Do(w.t, w.node, func() error {
		p.cmd = exec.Command("/proc/self/exe", w.args(more...)...)
		p.cmd.Env = append(os.Environ(), "PORTALD_TEST_RUN=1", "XTABLES_LOCKFILE="+filepath.Join(w.run, "xtables.lock"))
		p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
		return p.cmd.Start()
	})
	w.t.Cleanup(func() {
		p.stop()
		if w.t.Failed() {
			w.t.Logf("portald's log:\n%s", p.log)
		}
	})
	return p
}

func (p *portald) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		p.w.t.Errorf("portald after SIGTERM: %v", err)
	}
}

// synced waits until portald says that everything is in force and cond agrees.
func (p *portald) synced(what string, cond func(portals.Report) bool) portals.Report {
	p.w.t.Helper()
	var r portals.Report
	eventually(p.w.t, what, func() bool {
		r = portals.Report{}
		err := control.Dial(p.w.socket()).Get(p.w.t.Context(), "/status", &r)
		return err == nil && r.Synced && cond(r)
	})
	return r
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// write puts a file into the manifest directory the way careful editors do.
func (w *world) write(name, text string) {
	w.t.Helper()
	tmp := filepath.Join(w.run, name)
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// webfrontend is the article's service with the given endpoint addresses, all on port 8080.
func webfrontend(addresses ...string) string {
	var ends strings.Builder
	for _, a := range addresses {
		fmt.Fprintf(&ends, "  - {addresses: [%s]}\n", a)
	}
	return `apiVersion: v1
kind: Service
metadata: {name: webfrontend}
spec:
  clusterIP: 10.100.87.105
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: webfrontend-1, labels: {kubernetes.io/service-name: webfrontend}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints:
` + ends.String()
}

// pod answers each connection to addr in the namespace with "name saw client-address".
func (w *world) pod(h *netns.Handle, name, addr string) {
	w.t.Helper()
	var l net.Listener
	nstest.Do(w.t, h, func() (err error) { l, err = net.Listen("tcp4", addr); return err })
	w.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "%s saw %s", name, c.RemoteAddr().(*net.TCPAddr).IP)
			_ = c.Close()
		}
	}()
}

// curl connects to addr from a namespace and returns the answer, or the error's text.
func (w *world) curl(h *netns.Handle, addr string) string {
	w.t.Helper()
	var answer string
	nstest.Do(w.t, h, func() error {
		d := net.Dialer{Timeout: 3 * time.Second}
		c, err := d.DialTCP(w.t.Context(), "tcp4", netip.AddrPort{}, netip.MustParseAddrPort(addr))
		if err != nil {
			answer = err.Error()
			return nil
		}
		defer c.Close() //nolint:errcheck // a test client
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		var b bytes.Buffer
		if _, err := b.ReadFrom(c); err != nil {
			b.WriteString(err.Error())
		}
		answer = b.String()
		return nil
	})
	return answer
}

const vip = "10.100.87.105:80"

func TestUserspacePortal(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p := w.start("--mode=userspace")
	w.pod(w.other, "far", "10.10.20.4:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	r := p.synced("the first sync", func(r portals.Report) bool { return len(r.Portals) == 1 })
	port := r.Portals[0].ProxyPort

	t.Run("the rules are the article's", func(t *testing.T) {
		save := nstest.Run(t, w.node, "iptables-save", "-t", "nat")
		for _, want := range []string{
			"-A PREROUTING -j KUBE-PORTALS-CONTAINER\n",
			"-A OUTPUT -j KUBE-PORTALS-HOST\n",
			fmt.Sprintf("-A KUBE-PORTALS-CONTAINER -d 10.100.87.105/32 -p tcp -m comment --comment webfrontend -m tcp --dport 80 -j REDIRECT --to-ports %d\n", port),
			fmt.Sprintf("-A KUBE-PORTALS-HOST -d 10.100.87.105/32 -p tcp -m comment --comment webfrontend -m tcp --dport 80 -j DNAT --to-destination 10.20.30.62:%d\n", port),
		} {
			if !strings.Contains(save, want) {
				t.Errorf("missing %sin\n%s", want, save)
			}
		}
	})
	t.Run("the log names the portal and the service", func(t *testing.T) {
		for _, from := range []string{"containers", "host"} {
			want := fmt.Sprintf(`msg="opened portal" service=webfrontend portal="TCP 10.100.87.105:80" from=%s proxyPort=%d`, from, port)
			eventually(t, want, func() bool { return strings.Contains(p.log.String(), want) })
		}
	})
	t.Run("what no service has of the portal net is refused", func(t *testing.T) {
		for _, to := range []string{"10.100.87.105:81", "10.100.1.1:80"} {
			for who, from := range map[string]*netns.Handle{"a pod": w.client, "the node": w.node} {
				if got := w.curl(from, to); !strings.Contains(got, "connection refused") {
					t.Errorf("%s dials %s: %q", who, to, got)
				}
			}
		}
	})
	t.Run("two connections: the pod sees the node", func(t *testing.T) {
		if got := w.curl(w.client, vip); got != "far saw 10.20.30.62" {
			t.Errorf("from a pod: %q", got)
		}
		if got := w.curl(w.node, vip); got != "far saw 10.20.30.62" {
			t.Errorf("from the node: %q", got)
		}
	})
	t.Run("changed manifests take effect", func(t *testing.T) {
		w.write("web.yaml", webfrontend("10.10.10.3"))
		p.synced("the new endpoint", func(r portals.Report) bool {
			return len(r.Portals[0].Endpoints) == 1 && r.Portals[0].Endpoints[0].String() == "10.10.10.3:8080"
		})
		if got := w.curl(w.client, vip); got != "near saw 10.10.10.1" {
			t.Errorf("from a pod to one on its own bridge: %q", got)
		}
	})
	t.Run("a broken manifest is named and the old one stays in force", func(t *testing.T) {
		w.write("web.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: webfrontend}\nspec: {clusterIP: 10.100.87.105, ports: [{port: 70000}]}\n")
		eventually(t, "the mistake in the log", func() bool {
			return strings.Contains(p.log.String(), "web.yaml:4") && strings.Contains(p.log.String(), "70000")
		})
		if got := w.curl(w.client, vip); got != "near saw 10.10.10.1" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("without endpoints the portal refuses", func(t *testing.T) {
		w.write("web.yaml", webfrontend())
		p.synced("no endpoints", func(r portals.Report) bool { return len(r.Portals) == 1 && len(r.Portals[0].Endpoints) == 0 })
		for _, from := range []*netns.Handle{w.client, w.node} {
			if got := w.curl(from, vip); !strings.Contains(got, "connection refused") {
				t.Errorf("got %q", got)
			}
		}
	})
	t.Run("the proxy port survives a restart", func(t *testing.T) {
		w.write("web.yaml", webfrontend("10.10.20.4"))
		p.synced("the endpoint", func(r portals.Report) bool { return len(r.Portals[0].Endpoints) == 1 })
		p.stop()
		if save := nstest.Run(t, w.node, "iptables-save", "-t", "nat"); !strings.Contains(save, "REDIRECT") {
			t.Errorf("the rules went with portald:\n%s", save)
		}
		p = w.start("--mode=userspace")
		r := p.synced("the restart", func(r portals.Report) bool { return len(r.Portals) == 1 })
		if r.Portals[0].ProxyPort != port {
			t.Errorf("port %d before, %d after", port, r.Portals[0].ProxyPort)
		}
		if got := w.curl(w.client, vip); got != "far saw 10.20.30.62" {
			t.Errorf("after the restart: %q", got)
		}
	})
	t.Run("a second portald refuses to start", func(t *testing.T) {
		err := run(t.Context(), w.args("--mode=userspace"), os.Stdout, os.Stderr)
		if err == nil || !strings.Contains(err.Error(), "another process is listening") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("status says it all", func(t *testing.T) {
		var out bytes.Buffer
		if err := run(t.Context(), []string{"status", "--socket=" + w.socket()}, &out, &out); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"mode userspace, 1 services, 1 endpoints, in force", "default/webfrontend  TCP 10.100.87.105:80", fmt.Sprint(port), "10.10.20.4:8080"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("missing %q in\n%s", want, out.String())
			}
		}
	})
	t.Run("metrics count", func(t *testing.T) {
		w.curl(w.client, vip)
		c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.socket())
		}, DisableKeepAlives: true}}
		eventually(t, "the connection to be counted", func() bool {
			resp, err := c.Get("http://portald/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close() //nolint:errcheck // read whole
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(b), "portald_synced 1\n") &&
				strings.Contains(string(b), `portald_proxy_connections_total{service="default/webfrontend",port="",portal="TCP 10.100.87.105:80"} 2`) &&
				strings.Contains(string(b), `portald_network_programming_duration_seconds_bucket{le="+Inf"} 1`)
		})
	})
	t.Run("cleanup removes everything", func(t *testing.T) {
		p.stop()
		nstest.Do(t, w.node, func() error { return run(t.Context(), w.args("--cleanup"), os.Stdout, os.Stderr) })
		if save := nstest.Run(t, w.node, "iptables-save"); strings.Contains(save, "KUBE") {
			t.Errorf("left:\n%s", save)
		}
		if _, err := os.Stat(filepath.Join(w.run, "proxy-ports.json")); err == nil {
			t.Error("the file of proxy ports is left")
		}
	})
}

func TestRefusesOverlappingPortalNet(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ net, want string }{
		{"10.10.0.0/16", "--portal-net: 10.10.0.0/16 overlaps the pod subnet 10.10.10.0/24\n--portal-net: 10.10.0.0/16 overlaps the cluster's pod prefix 10.10.0.0/16"},
		{"10.20.0.0/16", "--portal-net: 10.20.0.0/16 overlaps the host subnet of ens18, 10.20.30.0/24"},
	} {
		for _, how := range [][]string{{"--mode=userspace"}, {"--dry-run"}, {"--once"}} {
			nstest.Do(t, w.node, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := run(ctx, w.args(append(how, "--portal-net="+tt.net)...), os.Stdout, os.Stderr)
				if err == nil || err.Error() != tt.want {
					t.Errorf("%s %v:\ngot  %v\nwant %s", tt.net, how, err, tt.want)
				}
				return nil
			})
		}
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	w.write("other.yaml", strings.NewReplacer("webfrontend", "stray", "10.100.87.105", "172.30.0.1").Replace(webfrontend()))
	var out bytes.Buffer
	nstest.Do(t, w.node, func() error { return run(t.Context(), w.args("--dry-run", "--mode=userspace"), &out, &out) })
	for _, want := range []string{
		"# default/webfrontend TCP 10.100.87.105:80 -> [10.10.20.4:8080]\n",
		"# problem: TCP 172.30.0.1:80 of default/stray: outside the portal net 10.100.0.0/16\n",
		"-I OUTPUT 1 -j KUBE-PORTALS-HOST\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("missing %q in\n%s", want, out.String())
		}
	}
	if save := nstest.Run(t, w.node, "iptables-save"); strings.Contains(save, "KUBE") {
		t.Errorf("left:\n%s", save)
	}
}
