// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestGuardedSessions signs with TCP MD5 and checks TTLs (GTSM), beside every router that we promise to get along with.
func TestGuardedSessions(t *testing.T) {
	for _, r := range []struct {
		name   string
		start  func(*testing.T, *host)
		prefix string // that the router itself announces
	}{
		{"embedded", func(t *testing.T, mls *host) {
			conf := mls.dir + "/routed.yaml"
			key := mls.dir + "/key"
			write(t, key, "secret\n")
			_ = os.Chmod(key, 0o600)
			write(t, conf, "listenRanges: [10.20.30.0/24]\nlistenGroup: nodes\ngroups: {nodes: {gtsm: true, passwordFile: "+key+"}}\nasn: 64512\npodSubnets: [10.10.99.0/24]\naccept: [10.10.0.0/16]\n")
			mls.routed(t, "--conf="+conf)
		}, "10.10.99.0/24"},
		{"bird", func(t *testing.T, mls *host) {
			runBird(t, mls, `router id 10.20.30.1;
protocol device { }
protocol static { ipv4; route 10.10.99.0/24 blackhole; }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol bgp a { local 10.20.30.1 as 64512; neighbor range 10.20.30.0/24 external; password "secret"; ttl security on; ipv4 { import all; export all; }; }
`)
		}, "10.10.99.0/24"},
		{"frr", func(t *testing.T, mls *host) {
			runFRR(t, mls, `hostname mls
router bgp 64512
 bgp router-id 10.20.30.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor NODES peer-group
 neighbor NODES remote-as external
 neighbor NODES password secret
 neighbor NODES ttl-security hops 1
 bgp listen range 10.20.30.0/24 peer-group NODES
 address-family ipv4 unicast
  network 10.10.99.0/24
 exit-address-family
`)
		}, "10.10.99.0/24"},
		{"exabgp", func(t *testing.T, mls *host) {
			runExaBGP(t, mls, "md5-password secret; outgoing-ttl 255; incoming-ttl 255;", "route 10.10.99.0/24 next-hop self;")
		}, "10.10.99.0/24"},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			key := l.n1.dir + "/key"
			write(t, key, "secret\n")
			if err := os.Chmod(key, 0o600); err != nil {
				t.Fatal(err)
			}
			l.n1.routed(t, "--peer=10.20.30.1,gtsm,password-file="+key, "--pod-subnet=10.10.10.0/24")
			t.Logf("route after %s", within(t, 8*time.Second, "route", func() bool { return l.n1.has(t, r.prefix+" via 10.20.30.1") }))
			if r.name == "exabgp" {
				return // it has no table to look in, and knows no other node
			}
			within(t, promised, "and the other way", func() bool { return l.mls.has(t, "10.10.10.0/24 via 10.20.30.62") })
			l.startNode(t, l.n2) // without the key
			within(t, 2*openTimeout, "silence for who has no key", func() bool {
				return strings.Contains(l.n2.output(), "i/o timeout")
			})
			if l.mls.has(t, "10.10.20.0/24") {
				t.Error("a session without the key")
			}
		})
	}
}

const openTimeout = 5 * time.Second

// runExaBGP starts a router that listens for kubminion1 alone and announces what it is told to.
func runExaBGP(t *testing.T, mls *host, settings, routes string) {
	t.Helper()
	const exabgp = "/usr/sbin/exabgp"
	if _, err := os.Stat(exabgp); err != nil {
		t.Fatal("exabgp is not installed: test/need.sh test")
	}
	conf := filepath.Join(mls.dir, "exabgp.conf")
	write(t, conf, fmt.Sprintf(`neighbor 10.20.30.62 {
  router-id 10.20.30.1; local-address 10.20.30.1; local-as 64512; peer-as 4201318462; hold-time 9; passive true; listen 179; %s
  family { ipv4 unicast; ipv6 unicast; }
  capability { graceful-restart 120; }
  static { %s }
}
`, settings, routes))
	env := []string{"exabgp.daemon.user=root", "exabgp.log.all=true", "exabgp.tcp.bind=10.20.30.1", "exabgp.tcp.port=179", "exabgp.api.cli=false"}
	mls.process = start(t, mls.Handle, env, exabgp, conf)
	listening(t, mls)
}

// TestExaBGP has a router without graceful restart's niceties and with both families.
func TestExaBGP(t *testing.T) {
	l := newLab(t)
	l.dual(t)
	runExaBGP(t, l.mls, "", "route 10.10.98.0/24 next-hop 10.20.30.1 med 5 community [64512:1]; route fd10:10:0:98::/64 next-hop fd00:20:30::1; route 10.10.10.128/25 next-hop self; route 0.0.0.0/0 next-hop self; route 10.10.97.0/24 next-hop 127.0.0.1; route 10.10.96.0/24 next-hop 10.20.30.62; route 127.0.0.0/8 next-hop self;")
	l.startDual(t, l.n1, "10.20.30.1")
	within(t, 8*time.Second, "routes of both families", func() bool {
		return l.n1.has(t, "10.10.98.0/24 via 10.20.30.1", "fd10:10:0:98::/64 via fd00:20:30::1")
	})
	refused := map[string]string{
		"10.10.10.128/25": "inside own pod subnet 10.10.10.0/24", "0.0.0.0/0": "default route not wanted",
		"10.10.96.0/24": "next hop 10.20.30.62 is this node", "127.0.0.0/8": "inside 127.0.0.0/8, which no router leads to",
	}
	within(t, promised, "what is wrong is refused, with the reason", func() bool {
		n := 0
		for _, x := range l.n1.status(t).Refused {
			if refused[x.Prefix.String()] == x.Reason {
				n++
			}
		}
		return n == len(refused) && !l.n1.has(t, "10.10.97.0/24") // the library drops that one
	})
}

// TestWeights has the switch spread flows over nodes, by the number of their endpoints where it heeds that.
func TestWeights(t *testing.T) {
	for _, r := range []struct {
		name             string
		start            func(*testing.T, *host)
		weight1, weight2 int
	}{
		{"embedded", func(t *testing.T, mls *host) {
			mls.routed(t, "--listen-range=10.20.30.0/24", "--asn=64512", "--accept=10.10.0.0/16", "--accept=203.0.113.0/24,max=32")
		}, 1, 3},
		{"bird", startBird, 1, 1},
		{"frr", func(t *testing.T, mls *host) {
			startFRR(t, mls, " bgp bestpath as-path multipath-relax\n bgp log-neighbor-changes\n")
		}, 25, 75},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			for i, n := range []*host{l.n1, l.n2} {
				var text atomic.Value
				text.Store(fmt.Sprintf(`{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[{"vip":"203.0.113.7","ready":%d}]}`, 1+2*i))
				stop := fakePortald(t, n.dir+"/portald.sock", &text)
				t.Cleanup(stop)
				l.startNode(t, n, "--announce-vips", "--portald-socket="+n.dir+"/portald.sock")
			}
			ways := func() string { return strings.Join(strings.Fields(l.mls.sh(t, "ip route show 203.0.113.7")), " ") }
			within(t, 5*time.Second, "both ways, with their weights", func() bool {
				out := ways()
				return strings.Contains(out, fmt.Sprintf("via 10.20.30.62 dev vlan30 weight %d", r.weight1)) && strings.Contains(out, fmt.Sprintf("via 10.20.30.63 dev vlan30 weight %d", r.weight2))
			})
			l.n1.signal(t, syscall.SIGTERM)
			within(t, promised, "one way less", func() bool {
				return !strings.Contains(ways(), "10.20.30.62") && strings.Contains(ways(), "10.20.30.63")
			})
			if r.name != "bird" { // it keeps the reason to itself
				within(t, promised, "the switch knows why", func() bool { return strings.Contains(l.mls.output(), "kubminion1: routed has been stopped") })
			}
		})
	}
}

// TestFewCapabilities runs with what conf/systemd/routed.service leaves it.
func TestFewCapabilities(t *testing.T) {
	l := newLab(t)
	l.dual(t)
	routers6[0].start(t, l.mls)
	listening(t, l.mls)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := l.n1
	n.sh(t, "echo 0 >/proc/sys/net/ipv4/ip_forward")
	n.process = start(t, n.Handle, []string{"ROUTED_IS_ME=1"}, "setpriv", "--no-new-privs", "--bounding-set=-all,+net_admin,+net_raw,+net_bind_service", "--inh-caps=-all",
		self, "--node="+n.name, "--node-file="+n.dir+"/node.json", "--socket="+n.dir+"/routed.sock", "--cni-conf-dir="+n.dir,
		"--peer=10.20.30.1,gtsm,bfd=300ms", "--pod-subnet=10.10.10.0/24", "--pod-subnet=fd10:10:0:10::/64")
	within(t, promised, "announced", func() bool { return l.mls.has(t, "10.10.10.0/24", "fd10:10:0:10::/64") })
	if out := n.output(); strings.Contains(out, "level=WARN") || !strings.Contains(out, "turned on forwarding") {
		t.Errorf("something could not be done:\n%s", out)
	}
	caps, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(caps), "CapEff:\t0000000000003400") { // bits 10, 12 and 13 (linux/capability.h)
		t.Errorf("capabilities %v %s", err, caps)
	}
}
