// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// The tests run the real program: this test binary, told by the environment to be routed.
func TestMain(m *testing.M) {
	if os.Getenv("ROUTED_IS_ME") != "" {
		main()
		os.Exit(0)
	}
	nstest.Main(m)
}

// process is a program that runs in a namespace.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func start(t *testing.T, h *netns.Handle, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(name, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	nstest.Do(t, h, p.cmd.Start)
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.signal(t, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s %s said:\n%s", filepath.Base(name), strings.Join(args, " "), p.output())
		}
	})
	return p
}

// signal sends a signal and waits for the end.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(s) // it may be gone
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%v: does not end on %v:\n%s", p.cmd.Args, s, p.output())
	}
}

// host is a namespace with its own directory for what is /run elsewhere.
type host struct {
	*netns.Handle
	name string
	dir  string
	frr  string // FRR's directory, where it runs
	*process
}

func newHost(t *testing.T, name string) *host {
	return &host{Handle: nstest.New(t), name: name, dir: t.TempDir()}
}

func (h *host) routed(t *testing.T, args ...string) {
	t.Helper()
	h.process = start(t, h.Handle, []string{"ROUTED_IS_ME=1"}, "/proc/self/exe", append([]string{
		"--node=" + h.name, "--node-file=" + h.dir + "/node.json", "--socket=" + h.dir + "/routed.sock", "--cni-conf-dir=" + h.dir,
	}, args...)...)
}

func (h *host) sh(t *testing.T, script string) string {
	t.Helper()
	return nstest.Sh(t, h.Handle, script)
}

// routes are the routes of both families that a routing daemon put there, one a line.
func (h *host) routes(t *testing.T) string {
	t.Helper()
	var out []string
	text := h.sh(t, "ip -4 route show; ip -6 route show")
	text = groupOfOne.ReplaceAllString(text, "$1 $3 $2")
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "proto kernel") {
			out = append(out, strings.Join(strings.Fields(nexthopID.ReplaceAllString(line, "")), " "))
		}
	}
	return strings.Join(out, "\n")
}

// groupOfOne is how ip tells IPv6 routes with a nexthop group: "PREFIX proto ...", and a line for each hop.
var groupOfOne = regexp.MustCompile(`(?m)^(\S+) (.*)\n\s+nexthop (via \S+ dev \S+).*$`)

var nexthopID = regexp.MustCompile(`nhid \d+ `)

func (h *host) has(t *testing.T, routes ...string) bool {
	t.Helper()
	have := h.routes(t) + "\n"
	for _, r := range routes {
		if !strings.Contains(have, r+" ") && !strings.Contains(have, r+"\n") {
			return false
		}
	}
	return true
}

func (h *host) status(t *testing.T) (st Status) {
	t.Helper()
	var out bytes.Buffer
	if err := run([]string{"status", "--json", "--socket=" + h.dir + "/routed.sock"}, &out, &out); err != nil {
		return Status{}
	}
	if err := json.Unmarshal(out.Bytes(), &st); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	return st
}

// within polls until ok and returns how long it took.
func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return time.Since(start)
		}
		if time.Since(start) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

// lab is the article's network: two segments at a switch, two nodes at one, one at the other.
type lab struct{ mls, n1, n2, n3 *host }

func newLab(t *testing.T) lab {
	l := lab{newHost(t, "mls"), newHost(t, "kubminion1"), newHost(t, "kubminion2"), newHost(t, "kubminion3")}
	nstest.Veth(t, l.n1.Handle, "ens18", "10.20.30.62/24", l.mls.Handle, "p1", "")
	nstest.Veth(t, l.n2.Handle, "ens18", "10.20.30.63/24", l.mls.Handle, "p2", "")
	nstest.Veth(t, l.n3.Handle, "ens18", "192.168.10.64/24", l.mls.Handle, "p3", "192.168.10.1/24")
	l.mls.sh(t, `
		ip link add vlan30 type bridge
		ip link set p1 master vlan30; ip link set p2 master vlan30
		ip addr add 10.20.30.1/24 dev vlan30
		ip link set vlan30 up
		echo 1 >/proc/sys/net/ipv4/ip_forward`)
	for i, n := range []*host{l.n1, l.n2, l.n3} {
		gw := "10.20.30.1"
		if n == l.n3 {
			gw = "192.168.10.1"
		}
		n.sh(t, fmt.Sprintf(`ip route add default via %s
			ip link add docker0 type bridge
			ip addr add 10.10.%d0.1/24 dev docker0
			ip link set docker0 up`, gw, i+1))
	}
	return l
}

func (l lab) startNode(t *testing.T, n *host, more ...string) {
	t.Helper()
	peer, subnet := "10.20.30.1", "10.10.10.0/24"
	switch n {
	case l.n2:
		subnet = "10.10.20.0/24"
	case l.n3:
		peer, subnet = "192.168.10.1", "10.10.30.0/24"
	}
	n.routed(t, append([]string{"--peer=" + peer, "--pod-subnet=" + subnet}, more...)...)
}

// routers are the switches that a node must get along with.
var routers = []struct {
	name  string
	start func(*testing.T, *host)
	third bool // it tells nodes on one segment to reach each other directly
}{
	{"embedded", startEmbedded, false},
	{"bird", startBird, true},
	{"frr", func(t *testing.T, h *host) { startFRR(t, h, "") }, true},
}

func startEmbedded(t *testing.T, mls *host) {
	mls.routed(t, "--listen-range=10.20.30.0/24", "--listen-range=192.168.10.0/24", "--asn=64512", "--accept=10.10.0.0/16")
}

func startBird(t *testing.T, mls *host) {
	runBird(t, mls, `router id 10.20.30.1;
protocol device { }
protocol kernel { merge paths on; ipv4 { export where source = RTS_BGP; import none; }; }
template bgp nodes { local as 64512; graceful restart on; ipv4 { import all; export where source = RTS_BGP; }; }
protocol bgp a from nodes { neighbor range 10.20.30.0/24 external; }
protocol bgp b from nodes { neighbor range 192.168.10.0/24 external; }
`)
}

func runBird(t *testing.T, mls *host, text string) {
	t.Helper()
	const bird = "/usr/sbin/bird"
	if _, err := os.Stat(bird); err != nil {
		t.Fatal("bird is not installed: test/need.sh test")
	}
	conf := filepath.Join(mls.dir, "bird.conf")
	write(t, conf, text)
	mls.process = start(t, mls.Handle, nil, bird, "-f", "-c", conf, "-s", mls.dir+"/bird.ctl", "-P", mls.dir+"/bird.pid")
	listening(t, mls)
}

func startFRR(t *testing.T, mls *host, more string) {
	runFRR(t, mls, `hostname mls
router bgp 64512
 bgp router-id 10.20.30.1
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as external
 bgp listen range 10.20.30.0/24 peer-group NODES
 bgp listen range 192.168.10.0/24 peer-group NODES
 bgp graceful-restart
`+more)
}

// runFRR starts zebra, bgpd with this configuration, and bfdd where that speaks of it.
func runFRR(t *testing.T, mls *host, conf string) {
	t.Helper()
	const lib = "/usr/lib/frr/"
	if _, err := os.Stat(lib + "bgpd"); err != nil {
		t.Fatal("frr is not installed: test/need.sh test")
	}
	u, err := user.Lookup("frr")
	if err != nil {
		t.Fatal("frr has no user")
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // every directory above must be open to the user frr
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Skip("frr drops to a user that this user namespace does not map: ", err)
	}
	mls.frr = dir
	write(t, dir+"/zebra.conf", "hostname mls\n")
	write(t, dir+"/bgpd.conf", conf)
	common := []string{"-z", dir + "/zserv.api", "--vty_socket", dir, "-A", "127.0.0.1", "-P", "0", "-u", "frr", "-g", "frr", "--log", "stdout"}
	start(t, mls.Handle, nil, lib+"zebra", append([]string{"-f", dir + "/zebra.conf", "-i", dir + "/zebra.pid"}, common...)...)
	within(t, 10*time.Second, "zebra", func() bool { _, err := os.Stat(dir + "/zserv.api"); return err == nil })
	if strings.Contains(conf, " bfd\n") {
		write(t, dir+"/bfdd.conf", "bfd\n profile p\n  transmit-interval 200\n  receive-interval 200\n  detect-multiplier 3\n exit\nexit\n")
		start(t, mls.Handle, nil, lib+"bfdd", append([]string{"-f", dir + "/bfdd.conf", "-i", dir + "/bfdd.pid", "--bfdctl", dir + "/bfdd.sock"}, common...)...)
		within(t, 10*time.Second, "bfdd", func() bool { _, err := os.Stat(dir + "/bfdd.vty"); return err == nil })
	}
	mls.process = start(t, mls.Handle, nil, lib+"bgpd", append([]string{"-f", dir + "/bgpd.conf", "-i", dir + "/bgpd.pid", "-p", "179"}, common...)...)
	listening(t, mls)
}

// vtysh asks FRR.
func (h *host) vtysh(t *testing.T, daemon, command string) string {
	t.Helper()
	return h.sh(t, "vtysh --vty_socket "+h.frr+" -d "+daemon+" -c '"+command+"'")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func listening(t *testing.T, h *host) {
	t.Helper()
	within(t, 10*time.Second, "BGP listens", func() bool { return strings.Contains(h.sh(t, "ss -ltn"), ":179 ") })
}

// reach sends a packet from one pod gateway to another, and checks that it arrives under its own address.
func reach(t *testing.T, a *host, from string, b *host, to string) {
	t.Helper()
	var server net.PacketConn
	nstest.Do(t, b.Handle, func() (err error) { server, err = net.ListenPacket("udp", net.JoinHostPort(to, "7")); return err })
	defer server.Close()
	nstest.Do(t, a.Handle, func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: 7})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	})
	_ = server.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, src, err := server.ReadFrom(make([]byte, 16))
	if err != nil {
		t.Fatalf("from %s to %s: %v", from, to, err)
	}
	if got := src.(*net.UDPAddr).IP.String(); got != from {
		t.Errorf("%s is seen as %s", from, got)
	}
}

const promised = 3 * time.Second // from start to routes in both FIBs

func TestNodesBehindARouter(t *testing.T) {
	for _, r := range routers {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			direct := func(addr string) string { // the way from one node to another on its segment
				if r.third {
					return "via " + addr
				}
				return "via 10.20.30.1"
			}
			all := func() bool {
				return l.mls.has(t, "10.10.10.0/24 via 10.20.30.62", "10.10.20.0/24 via 10.20.30.63", "10.10.30.0/24 via 192.168.10.64") &&
					l.n1.has(t, "10.10.20.0/24 "+direct("10.20.30.63"), "10.10.30.0/24 via 10.20.30.1") &&
					l.n2.has(t, "10.10.10.0/24 "+direct("10.20.30.62"), "10.10.30.0/24 via 10.20.30.1") &&
					l.n3.has(t, "10.10.10.0/24 via 192.168.10.1", "10.10.20.0/24 via 192.168.10.1")
			}
			for _, n := range []*host{l.n1, l.n2, l.n3} {
				l.startNode(t, n)
			}
			t.Logf("all routes everywhere after %s", within(t, promised, "all routes", all))
			reach(t, l.n1, "10.10.10.1", l.n3, "10.10.30.1")
			reach(t, l.n1, "10.10.10.1", l.n2, "10.10.20.1")

			l.n1.signal(t, syscall.SIGTERM)
			took := within(t, time.Second, "a clean stop withdraws at once", func() bool {
				return !l.mls.has(t, "10.10.10.0/24") && !l.n3.has(t, "10.10.10.0/24")
			})
			t.Logf("withdrawn after %s", took)
			if got := l.n1.sh(t, "ip route show proto 103"); got != "" {
				t.Errorf("a stopped router left routes:\n%s", got)
			}
			l.startNode(t, l.n1)
			t.Logf("back after %s", within(t, promised, "back again", all))

			before := l.n2.sh(t, "ip route show proto 103")
			l.n2.signal(t, syscall.SIGKILL)
			if got := l.n2.sh(t, "ip route show proto 103"); got != before {
				t.Errorf("the kernel's routes changed with the process:\n%s", got)
			}
			l.n3.signal(t, syscall.SIGTERM) // n2 must find out that this one is gone
			within(t, time.Second, "withdrawn", func() bool { return !l.mls.has(t, "10.10.30.0/24") })
			l.startNode(t, l.n2)
			took = within(t, 15*time.Second, "the dead node is back and has swept", func() bool {
				return l.mls.has(t, "10.10.20.0/24 via 10.20.30.63") && l.n2.has(t, "10.10.10.0/24") && !l.n2.has(t, "10.10.30.0/24") &&
					len(l.n2.status(t).Sessions) == 1 && l.n2.status(t).Sessions[0].Synced
			})
			t.Logf("after a crash back and swept after %s", took)
			want := "unreachable 10.10.20.0/24 metric 2147483647 \n"
			if got := l.n2.sh(t, "ip route show proto 103 | sort"); strings.Count(got, "\n") != 2 || !strings.Contains(got, want) {
				t.Errorf("want one learned route and the sink, have:\n%s", got)
			}
		})
	}
}

func TestEveryoneStartsTogether(t *testing.T) {
	l := newLab(t)
	for _, n := range []*host{l.n1, l.n2, l.n3} {
		l.startNode(t, n)
	}
	startEmbedded(t, l.mls)
	took := within(t, promised, "all routes", func() bool {
		return l.n1.has(t, "10.10.20.0/24", "10.10.30.0/24") && l.n3.has(t, "10.10.10.0/24", "10.10.20.0/24")
	})
	t.Logf("after %s", took)
}

func TestHandOver(t *testing.T) {
	for _, r := range routers {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			l.startNode(t, l.n1)
			l.startNode(t, l.n3)
			up := func() bool { return l.mls.has(t, "10.10.10.0/24", "10.10.30.0/24") && l.n1.has(t, "10.10.30.0/24") }
			within(t, promised, "routes", up)
			within(t, 5*time.Second, "End-of-RIB", func() bool { return l.n1.status(t).Sessions[0].Synced })
			l.n1.signal(t, syscall.SIGUSR2)
			if !up() {
				t.Fatal("the hand-over cost a route")
			}
			changes := start(t, l.mls.Handle, nil, "ip", "-4", "monitor", "route")
			l.startNode(t, l.n1)
			within(t, 15*time.Second, "the successor is up", func() bool {
				st := l.n1.status(t)
				return len(st.Sessions) == 1 && st.Sessions[0].Synced && st.Sessions[0].Out == 1
			})
			if !up() || strings.Contains(changes.output(), "Deleted 10.10.10.0/24") {
				t.Errorf("the successor's start cost a route: %s\n%s", l.mls.routes(t), changes.output())
			}
		})
	}
}

// TestBFD cuts a node off without its noticing: its port leaves the switch's bridge, and the carrier stays. An interval of
// 200 ms bears a machine on which this process gets no turn for half a second; the bench measures 50 and 300.
func TestBFD(t *testing.T) {
	bfdUp := func(t *testing.T, h *host) bool {
		st := h.status(t)
		return slices.ContainsFunc(st.Sessions, func(x bgp.Session) bool { return x.BFD == "up" })
	}
	for _, r := range []struct {
		name  string
		start func(*testing.T, *host)
		up    func(*testing.T, *host) bool
	}{
		{"embedded", func(t *testing.T, mls *host) {
			conf := mls.dir + "/routed.yaml"
			write(t, conf, "listenRanges: [10.20.30.0/24, 192.168.10.0/24]\nasn: 64512\naccept: [10.10.0.0/16]\nlistenGroup: nodes\ngroups: {nodes: {bfd: 200ms}}\n")
			mls.routed(t, "--conf="+conf)
		}, bfdUp},
		{"frr", func(t *testing.T, mls *host) {
			startFRR(t, mls, " neighbor NODES bfd\n neighbor NODES bfd profile p\n")
		}, func(t *testing.T, mls *host) bool {
			return strings.Contains(mls.vtysh(t, "bfdd", "show bfd peers"), "Status: up")
		}},
		{"bird", func(t *testing.T, mls *host) {
			runBird(t, mls, `router id 10.20.30.1;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol bfd { interface "*" { min rx interval 200 ms; min tx interval 200 ms; multiplier 3; }; }
template bgp nodes { local as 64512; graceful restart on; bfd on; error wait time 1, 2; ipv4 { import all; export where source = RTS_BGP; }; }
protocol bgp a from nodes { neighbor range 10.20.30.0/24 external; }
protocol bgp b from nodes { neighbor range 192.168.10.0/24 external; }
`)
		}, func(t *testing.T, mls *host) bool {
			return strings.Contains(mls.sh(t, "/usr/sbin/birdc -s "+mls.dir+"/bird.ctl show bfd sessions"), " Up ")
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			l.n1.routed(t, "--peer=10.20.30.1,bfd=200ms", "--pod-subnet=10.10.10.0/24")
			l.startNode(t, l.n3)
			up := func() bool { return l.mls.has(t, "10.10.10.0/24") && l.n1.has(t, "10.10.30.0/24") }
			within(t, promised, "routes", up)
			within(t, 10*time.Second, "BFD on both sides", func() bool { return r.up(t, l.mls) && bfdUp(t, l.n1) })
			if !up() || l.n1.status(t).Sessions[0].Losses > 0 {
				t.Fatalf("BFD took the session down by itself: %+v", l.n1.status(t).Sessions)
			}
			l.mls.sh(t, "ip link set p1 nomaster")
			cut := time.Now()
			within(t, 2*time.Second, "the node sees it", func() bool { return !l.n1.has(t, "10.10.30.0/24") })
			t.Logf("the node's route is gone after %s", time.Since(cut))
			within(t, 2*time.Second, "the router sees it", func() bool { return !l.mls.has(t, "10.10.10.0/24") })
			t.Logf("the router's route is gone after %s", time.Since(cut))
			if p := l.n1.status(t).Sessions[0].Problem; !strings.Contains(p, "BFD") && !strings.Contains(p, "dial tcp") {
				t.Errorf("problem %q", p)
			}
			l.mls.sh(t, "ip link set p1 master vlan30")
			within(t, 20*time.Second, "back", up)
		})
	}
}

func TestARouteThatSomebodyDeletesComesBack(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.startNode(t, l.n1)
	l.startNode(t, l.n3)
	up := func() bool { return l.n1.has(t, "10.10.30.0/24 via 10.20.30.1") }
	within(t, promised, "route", up)
	l.n1.sh(t, "ip route del 10.10.30.0/24 proto 103")
	within(t, time.Second, "back", up)
}

func TestALostLinkEndsTheSession(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.startNode(t, l.n1)
	l.startNode(t, l.n3)
	up := func() bool { return l.n1.has(t, "10.10.30.0/24 via 10.20.30.1") }
	down := func() bool { return !up() && l.n1.status(t).Sessions[0].State != "established" }
	within(t, promised, "route", up)
	l.mls.sh(t, "ip link set p1 down") // the node sees its carrier go
	t.Logf("carrier lost: noticed after %s", within(t, time.Second, "route and session are gone", down))
	if p := l.n1.status(t).Sessions[0].Problem; p != "the link to the peer is down" && !strings.Contains(p, "10.20.30.1:179") {
		t.Errorf("problem %q", p)
	}
	l.mls.sh(t, "ip link set p1 up")
	t.Logf("carrier back: route after %s", within(t, 10*time.Second, "back", up))
	l.n1.sh(t, "ip link set ens18 down")
	within(t, time.Second, "route and session are gone", down)
	l.n1.sh(t, "ip link set ens18 up; ip route add default via 10.20.30.1")
	t.Logf("link up: route after %s", within(t, 10*time.Second, "back", up))
}

func TestReload(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.startNode(t, l.n3)
	conf := l.n1.dir + "/routed.yaml"
	write(t, conf, "peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/24]\n")
	l.n1.routed(t, "--conf="+conf)
	within(t, promised, "routes", func() bool { return l.mls.has(t, "10.10.10.0/24") && l.n1.has(t, "10.10.30.0/24") })
	since := l.n1.status(t).Sessions[0].Since

	write(t, conf, "peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/24, 10.10.11.0/24]\naccept: [10.10.0.0/20]\n")
	within(t, promised, "another subnet, a narrower policy", func() bool { return l.mls.has(t, "10.10.11.0/24") && !l.n1.has(t, "10.10.30.0/24") })
	if now := l.n1.status(t).Sessions[0].Since; now != since {
		t.Errorf("the session was disturbed: %s, %s", since, now)
	}
	if now := l.n1.status(t).PodSubnets; len(now) != 2 {
		t.Errorf("status tells of the pod subnets %s", now)
	}
	for _, bad := range []struct{ text, want string }{
		{"peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/33]\nmist: 1\n", "mist: there is no such key"},
		{"peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/24]\nasn: 7\nport: 180\n", "restart routed to change asn, port"},
	} {
		write(t, conf, bad.text)
		within(t, promised, "says what is wrong", func() bool { return strings.Contains(l.n1.status(t).Config, bad.want) })
		if !l.mls.has(t, "10.10.10.0/24", "10.10.11.0/24") {
			t.Error("a bad file is in force")
		}
	}
	write(t, conf, "peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/24]\n")
	within(t, promised, "good again", func() bool {
		return l.n1.status(t).Config == "" && !l.mls.has(t, "10.10.11.0/24") && l.n1.has(t, "10.10.30.0/24")
	})
}

func TestAKeyElsewhereIsWatched(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	conf, key := l.n1.dir+"/routed.yaml", t.TempDir()+"/key"
	change := func(text string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change("secret")
	write(t, conf, "peers: [{name: 10.20.30.1}]\npodSubnets: [10.10.10.0/24]\ngroups: {signed: {passwordFile: "+key+"}}\n")
	l.n1.routed(t, "--conf="+conf)
	within(t, promised, "a session", func() bool { return l.mls.has(t, "10.10.10.0/24") })
	change("")
	within(t, promised, "the key is gone", func() bool { return strings.Contains(l.n1.status(t).Config, "holds 0 bytes") })
	change("another")
	within(t, promised, "a key again", func() bool { return l.n1.status(t).Config == "" })
}

func TestForwardingIsTheProof(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.startNode(t, l.n1)
	within(t, promised, "route", func() bool { return l.mls.has(t, "10.10.10.0/24") })
	l.n1.sh(t, "echo 0 >/proc/sys/net/ipv4/ip_forward")
	within(t, time.Second, "withdrawn", func() bool { return !l.mls.has(t, "10.10.10.0/24") })
	held := l.n1.status(t).Held
	if len(held) != 1 || held[0].Lacks != "forwarding is off (net.ipv4.ip_forward)" {
		t.Errorf("held %v", held)
	}
	l.n1.sh(t, "echo 1 >/proc/sys/net/ipv4/ip_forward")
	within(t, time.Second, "announced again", func() bool { return l.mls.has(t, "10.10.10.0/24") })
}

// TestTheProofIsOfTheLinks: the kernel forwards what comes in by a link only where the link's own setting says so.
func TestTheProofIsOfTheLinks(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.n1.sh(t, "ip link add mgmt type bridge; ip addr add 172.16.0.1/24 dev mgmt; ip link set mgmt up")
	l.startNode(t, l.n1)
	has := func() bool { return l.mls.has(t, "10.10.10.0/24") }
	within(t, promised, "route", has)
	l.n1.sh(t, "echo 0 >/proc/sys/net/ipv4/conf/mgmt/forwarding") // nobody comes by this one
	for _, row := range []struct{ off, on, lacks string }{
		{"echo 0 >/proc/sys/net/ipv4/conf/ens18/forwarding", "echo 1 >/proc/sys/net/ipv4/conf/ens18/forwarding", "forwarding is off (net.ipv4.conf.ens18.forwarding)"},
		{"echo 0 >/proc/sys/net/ipv4/conf/docker0/forwarding", "echo 1 >/proc/sys/net/ipv4/conf/docker0/forwarding", "forwarding is off (net.ipv4.conf.docker0.forwarding)"},
		{"ip link set docker0 down", "ip link set docker0 up", "the pods' link docker0 is down"},
		{"ip link set docker0 down", "ip link del docker0", "the pods' link docker0 is down"}, // the first pod brings it again
	} {
		l.n1.sh(t, row.off)
		within(t, time.Second, "withdrawn: "+row.off, func() bool { return !has() })
		if held := l.n1.status(t).Held; len(held) != 1 || held[0].Lacks != row.lacks {
			t.Errorf("%s: held %v", row.off, held)
		}
		l.n1.sh(t, row.on)
		within(t, time.Second, "announced again: "+row.on, has)
	}
}

func TestBootWithoutNetwork(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.n1.sh(t, "ip addr flush dev ens18")
	l.startNode(t, l.n1)
	within(t, 5*time.Second, "says what it waits for", func() bool {
		return strings.Contains(l.n1.status(t).Waiting, "route to 10.20.30.1: network is unreachable")
	})
	data, err := os.ReadFile(l.n1.dir + "/node.json")
	if err != nil {
		t.Fatalf("the CNI plugin cannot know the pod subnet: %v", err)
	}
	if n, err := node.Parse(data); err != nil || n.PodSubnets[0] != netip.MustParsePrefix("10.10.10.0/24") {
		t.Errorf("%v %v", n, err)
	}
	l.n1.sh(t, "ip addr add 10.20.30.62/24 dev ens18; ip route add default via 10.20.30.1")
	within(t, promised, "route", func() bool { return l.mls.has(t, "10.10.10.0/24 via 10.20.30.62") })
	within(t, time.Second, "the node file names the uplink", func() bool {
		data, err := os.ReadFile(l.n1.dir + "/node.json")
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.Parse(data)
		return err == nil && n.Uplink == "ens18" && n.MTU == 1500 && len(n.Addresses) == 1 && n.ClusterPrefixes[0] == netip.MustParsePrefix("10.10.0.0/16")
	})
}

func TestStatus(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.startNode(t, l.n1)
	l.startNode(t, l.n3)
	within(t, promised, "session", func() bool {
		st := l.n1.status(t)
		return len(st.Sessions) == 1 && st.Sessions[0].In == 1 && st.Sessions[0].Out == 1 && len(st.Routes) == 2
	})
	st := l.n1.status(t)
	st.Since = time.Unix(100, 0)
	st.Sessions[0].Since = time.Unix(130, 0)
	got := st.table(time.Unix(190, 0))
	want := `node kubminion1, ASN 4201318462, router ID 10.20.30.62, up 1m30s

PEER        ADDRESS     ASN    STATE        BFD  SINCE  IN  OUT  PROBLEM
10.20.30.1  10.20.30.1  64512  established  -    1m0s   1   1    -

ANNOUNCED      WHY
10.10.10.0/24  pod subnet

ROUTE          VIA
10.10.10.0/24  unreachable
10.10.30.0/24  10.20.30.1
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	st.Leaving, st.Sessions[0].BFD = "withdrawn", "up"
	st.Routes[0].Stale, st.Routes[1].Failed, st.Routes[1].Problem = true, true, "no buffer space available"
	got = st.table(time.Unix(190, 0))
	for _, want := range []string{
		"drained: service addresses are withdrawn\n", "established  up   1m0s", "10.10.10.0/24  unreachable (left by an earlier process)\n",
		"10.10.30.0/24  10.20.30.1 (not in the kernel: no buffer space available)\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if len(l.mls.status(t).Sessions) != 2 {
		t.Errorf("the router sees %v", l.mls.status(t).Sessions)
	}
}

func TestMetrics(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	l.n1.sh(t, "ip link set lo up")
	l.n1.routed(t, "--peer=10.20.30.1", "--pod-subnet=10.10.10.0/24", "--metrics=127.0.0.1:9479")
	get := func(path string) (body string, code int) {
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (c net.Conn, err error) {
			err = l.n1.Do(func() error { c, err = net.Dial("tcp", "127.0.0.1:9479"); return err })
			return c, err
		}}}
		r, err := c.Get("http://x" + path)
		if err != nil {
			return err.Error(), 0
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b), r.StatusCode
	}
	within(t, promised, "ready", func() bool { _, code := get("/readyz"); return code == 200 })
	body, _ := get("/metrics")
	for _, want := range []string{
		"routed_routes 1\n", "routed_announced 1\n", "routed_configuration_current 1\n", "routed_session_up{peer=\"10.20.30.1\"} 1\n",
		"routed_session_prefixes_out{peer=\"10.20.30.1\"} 1\n", "routed_session_losses_total{peer=\"10.20.30.1\"} 0\n", "routed_sync_total{result=\"error\"} 0\n",
		"# TYPE routed_programming_seconds histogram\nrouted_programming_seconds_bucket{le=\"0.0005\"} ", "routed_programming_seconds_bucket{le=\"+Inf\"} 1\nrouted_programming_seconds_sum 0.0",
		"routed_programming_seconds_count 1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	l.mls.signal(t, syscall.SIGTERM)
	within(t, promised, "not ready without a session", func() bool { body, code := get("/readyz"); return code == 503 && body == "no session is established\n" })
	if body, _ := get("/metrics"); !strings.Contains(body, "routed_session_losses_total{peer=\"10.20.30.1\"} 1\n") {
		t.Errorf("the loss is not counted:\n%s", body)
	}
	if _, code := get("/debug/pprof/"); code != 404 {
		t.Errorf("profiles over TCP: %d", code)
	}
}

func TestStartErrors(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	listening(t, l.mls)
	second := newHost(t, "second") // with another socket: its routes are the same
	second.Handle = l.mls.Handle
	third := &host{Handle: l.mls.Handle, name: "third", dir: l.mls.dir}
	for _, h := range []*host{second, third} {
		h.routed(t, "--listen-range=10.20.30.0/24", "--accept=10.10.0.0/16", "--port=1790")
		<-h.done
		if !strings.Contains(h.output(), "routed is running already") {
			t.Errorf("got %s", h.output())
		}
	}
	var taken net.Listener
	nstest.Do(t, l.n1.Handle, func() (err error) { taken, err = net.Listen("tcp", ":179"); return err })
	defer taken.Close()
	l.startNode(t, l.n1)
	<-l.n1.done
	if !strings.Contains(l.n1.output(), "port 179 is taken by another program; `ss -ltnp sport = :179` names it") {
		t.Errorf("got %s", l.n1.output())
	}
}
