// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// world is a node with two pods on a bridge, and on its uplink another node (10.10.20.0/24 are its pods) and a router
// (172.16.0.100 is behind it). Every host answers on every address with "own-address client-address".
type world struct {
	t                             testing.TB
	node, a, b, other, router, sw *netns.Handle
	d                             *DataPlane
	table                         portal.Table
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t}
	for _, h := range []**netns.Handle{&w.node, &w.a, &w.b, &w.other, &w.router, &w.sw} {
		*h = nstest.New(t)
	}
	nstest.Sh(t, w.sw, "ip link add lan type bridge; ip link set lan up")
	nstest.Sh(t, w.node, `ip link add br0 type bridge; ip addr add 10.10.10.1/24 dev br0; ip -6 addr add fd00:10:10::1/64 dev br0 nodad
		ip link set br0 up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1`)
	for i, pod := range []*netns.Handle{w.a, w.b} {
		nstest.Veth(t, w.node, fmt.Sprint("p", i), "", pod, "eth0", fmt.Sprintf("10.10.10.%d/24", i+2))
		nstest.Sh(t, w.node, fmt.Sprintf("ip link set p%d master br0; bridge link set dev p%d hairpin on", i, i))
		nstest.Sh(t, pod, fmt.Sprintf("ip route add default via 10.10.10.1; ip -6 addr add fd00:10:10::%d/64 dev eth0 nodad; ip -6 route add default via fd00:10:10::1", i+2))
	}
	for i, h := range []struct {
		h  *netns.Handle
		ip string
	}{{w.node, "62"}, {w.other, "63"}, {w.router, "1"}} {
		nstest.Veth(t, w.sw, fmt.Sprint("l", i), "", h.h, "ens18", "10.20.30."+h.ip+"/24")
		nstest.Sh(t, w.sw, fmt.Sprintf("ip link set l%d master lan", i))
		nstest.Sh(t, h.h, "ip -6 addr add fd00:20::"+h.ip+"/64 dev ens18 nodad")
	}
	nstest.Sh(t, w.node, `ip route add default via 10.20.30.1; ip route add 10.10.20.0/24 via 10.20.30.63; ip route add 10.100.0.0/16 dev br0 src 10.10.10.1
		ip -6 route add default via fd00:20::1; ip -6 route add fd00:10:20::/64 via fd00:20::63; ip -6 route add fd00:100::/112 dev br0 src fd00:10:10::1`)
	nstest.Sh(t, w.other, `ip route add local 10.10.20.0/24 dev lo; ip route add 10.10.10.0/24 via 10.20.30.62; ip route add 172.16.0.0/24 via 10.20.30.1
		ip route add default via 10.20.30.62; ip -6 route add local fd00:10:20::/64 dev lo; ip -6 route add default via fd00:20::62
		sysctl -qw net.ipv6.ip_nonlocal_bind=1 net.ipv4.ip_nonlocal_bind=1`)
	nstest.Sh(t, w.router, `ip addr add 172.16.0.100/32 dev lo; ip route add default via 10.20.30.62; ip route add 10.10.20.0/24 via 10.20.30.63
		sysctl -qw net.ipv4.ip_forward=1`)
	for _, h := range []*netns.Handle{w.node, w.a, w.b, w.other, w.router} {
		w.serve(h)
	}
	w.d = plane(t, w.node)
	return w
}

const backend = 8080

// serve answers TCP and UDP on port 8080.
func (w *world) serve(h *netns.Handle) {
	w.t.Helper()
	nstest.Do(w.t, h, func() error {
		l, err := net.Listen("tcp", fmt.Sprint(":", backend))
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%s %s", host(c.LocalAddr()), host(c.RemoteAddr()))
				_ = c.Close()
			}
		}()
		return nil
	})
}

func host(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().Unmap().String() }

// client says where a packet of this source address starts.
func (w *world) client(from netip.Addr) *netns.Handle {
	switch s := from.String(); {
	case s == "10.10.10.2" || s == "fd00:10:10::2":
		return w.a
	case s == "10.10.10.3" || s == "fd00:10:10::3":
		return w.b
	case s == "10.20.30.62" || s == "127.0.0.1" || s == "10.10.10.1" || s == "fd00:20::62" || s == "fd00:10:10::1":
		return w.node
	case s == "172.16.0.100":
		return w.router
	}
	return w.other
}

// dial does for real what p describes and returns who answered whom: "forward endpoint seen-source", or refuse, silence.
func (w *world) dial(p portal.Packet) string {
	var got string
	var late net.Error
	_ = w.client(p.From).Do(func() error {
		d := net.Dialer{Timeout: 250 * time.Millisecond, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.From, 0))}
		c, err := d.Dial("tcp", netip.AddrPortFrom(p.To, p.Port).String())
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			got = "refuse"
			return nil
		case errors.As(err, &late) && late.Timeout():
			got = "silence"
			return nil
		case err != nil:
			got = err.Error()
			return nil
		}
		defer c.Close() //nolint:errcheck // a test's client
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		b, err := io.ReadAll(c)
		got = "forward " + string(b)
		if err != nil {
			got += " " + err.Error()
		}
		return nil
	})
	return got
}

// agree compares what happens with what Trace says, and returns the endpoint that answered.
func (w *world) agree(p portal.Packet) string {
	w.t.Helper()
	want, got := portal.Trace(w.table, p), w.dial(p)
	verdict, rest, _ := strings.Cut(got, " ")
	if verdict != want.Verdict.String() {
		w.t.Errorf("%v -> %v:%d: got %q, Trace says %v (%s) %v", p.From, p.To, p.Port, got, want.Verdict, want.Why, want.Endpoints)
		return ""
	}
	if want.Verdict != portal.Forward {
		return ""
	}
	by, seen, _ := strings.Cut(rest, " ")
	ep, err := netip.ParseAddr(by)
	if err != nil || !slices.Contains(want.Endpoints, netip.AddrPortFrom(ep, backend)) {
		w.t.Errorf("%v -> %v:%d: answered by %q, want one of %v", p.From, p.To, p.Port, by, want.Endpoints)
		return ""
	}
	kept := seen == p.From.String()
	if why := w.table.Source(p.From, portal.Key{Addr: p.To, Protocol: p.Protocol, Port: p.Port}, ep); kept != (why == portal.Keep) {
		w.t.Errorf("%v -> %v:%d by %v: the endpoint saw %s, but %s", p.From, p.To, p.Port, ep, seen, why)
	}
	return by
}

// several tries meet several endpoints; silence need not be waited for twice.
func (w *world) several(p portal.Packet) {
	w.t.Helper()
	for range 4 {
		w.agree(p)
		if portal.Trace(w.table, p).Verdict == portal.Silence {
			return
		}
	}
}

func (w *world) apply(t portal.Table) {
	w.t.Helper()
	w.table = t
	apply(w.t, w.d, t)
}

func packet(from, to string) portal.Packet {
	ap := netip.MustParseAddrPort(to)
	return portal.Packet{From: netip.MustParseAddr(from), To: ap.Addr(), Port: ap.Port(), Protocol: service.TCP}
}

func TestTrafficOfEverySort(t *testing.T) {
	w := newWorld(t)
	lb := service.Service{LoadBalancers: addrs("198.51.100.1"), ExternalIPs: addrs("192.0.2.1"), ClusterIPs: addrs("10.100.0.40"), Ports: tcp(80, 30080)}
	keep := service.Service{LoadBalancers: addrs("198.51.100.2"), ClusterIPs: addrs("10.100.0.41"), Ports: tcp(80, 30081), ExternalPolicy: service.Local}
	away := service.Service{LoadBalancers: addrs("198.51.100.3"), Ports: tcp(80, 30082), ExternalPolicy: service.Local, InternalPolicy: service.Local, ClusterIPs: addrs("10.100.0.42")}
	w.apply(newSnapshot().
		add(service.Service{ClusterIPs: addrs("10.100.87.105", "fd00:100::105"), Ports: tcp(80)}, "webfrontend",
			"10.10.10.2:8080", "10.10.10.3:8080", "10.10.20.2:8080", "10.10.20.3:8080", "[fd00:10:10::2]:8080", "[fd00:10:20::2]:8080").
		add(service.Service{ClusterIPs: addrs("10.100.0.30", "fd00:100::30"), Ports: tcp(80, 30030)}, "empty").
		add(service.Service{ClusterIPs: addrs("10.100.0.31"), Ports: tcp(80)}, "self", "10.10.10.2:8080").
		add(service.Service{ClusterIPs: addrs("10.100.0.32"), Ports: tcp(80)}, "host", "10.20.30.62:8080").
		add(lb, "lb", "10.10.10.2:8080", "10.10.20.2:8080").
		add(keep, "keep", "10.10.10.2:8080", "10.10.20.2:8080").
		add(away, "away", "10.10.20.2:8080").
		add(service.Service{LoadBalancers: addrs("198.51.100.4"), Ports: tcp(80), SourceRanges: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24")}}, "fenced", "10.10.10.2:8080").
		table(options()))
	v4 := []string{"10.10.10.2", "10.10.10.3", "10.10.10.1", "10.20.30.62", "172.16.0.100", "10.10.20.9"}
	for _, from := range v4 {
		for _, to := range []string{
			"10.100.87.105:80", "10.100.87.105:81", "10.100.0.30:80", "10.100.0.31:80", "10.100.0.32:80", "10.100.1.1:80",
			"198.51.100.1:80", "192.0.2.1:80", "10.100.0.40:80", "10.20.30.62:30080", "198.51.100.2:80", "10.20.30.62:30081",
			"198.51.100.3:80", "10.20.30.62:30082", "10.100.0.42:80", "10.20.30.62:30030", "198.51.100.4:80", "198.51.100.4:81",
		} {
			w.several(packet(from, to))
		}
	}
	for _, from := range []string{"fd00:10:10::2", "fd00:10:10::3", "fd00:10:10::1", "fd00:10:20::9"} {
		for _, to := range []string{"[fd00:100::105]:80", "[fd00:100::105]:81", "[fd00:100::30]:80", "[fd00:100::99]:80"} {
			w.several(packet(from, to))
		}
	}
	for from, h := range map[string]*netns.Handle{"10.10.10.2": w.a, "10.10.10.1": w.node, "172.16.0.100": w.router} {
		for _, to := range []string{"10.100.87.105", "10.100.0.30", "10.100.1.1"} {
			want := portal.Trace(w.table, portal.Packet{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), Protocol: portal.ICMP})
			if got := ping(t, h, to); got != (want.Verdict == portal.Answer) {
				t.Errorf("ping from %s to %s answered: %v, Trace says %v", from, to, got, want.Verdict)
			}
		}
	}
}

// With the pods unknown what comes from elsewhere comes back this way, and policy Local goes by the node's name.
func TestTrafficWhereThePodsAreUnknown(t *testing.T) {
	w := newWorld(t)
	o := options()
	o.Node.PodSubnets = nil
	s := newSnapshot().
		add(service.Service{ClusterIPs: addrs("10.100.0.40"), LoadBalancers: addrs("198.51.100.1"), Ports: tcp(80, 30080)}, "lb", "10.10.10.2:8080", "10.10.20.2:8080").
		add(service.Service{LoadBalancers: addrs("198.51.100.2"), Ports: tcp(80, 30081), ExternalPolicy: service.Local}, "keep", "10.10.10.2:8080", "10.10.20.2:8080").
		add(service.Service{LoadBalancers: addrs("198.51.100.3"), Ports: tcp(80), ExternalPolicy: service.Local}, "away", "10.10.20.2:8080")
	for _, eps := range s.Endpoints {
		for i := range eps {
			eps[i].Node = map[bool]string{true: "kubminion1", false: "kubminion2"}[strings.HasPrefix(eps[i].Addr.String(), "10.10.10.")]
		}
	}
	w.apply(s.table(o))
	for _, from := range []string{"10.10.10.2", "10.10.10.3", "10.20.30.62"} {
		w.several(packet(from, "10.100.0.40:80"))
	}
	for _, from := range []string{"10.10.10.2", "10.10.10.3", "10.20.30.62", "172.16.0.100"} {
		for _, to := range []string{"198.51.100.1:80", "10.20.30.62:30080", "198.51.100.2:80", "10.20.30.62:30081", "198.51.100.3:80"} {
			w.several(packet(from, to))
		}
	}
}

// The node's own processes find NodePorts on localhost, where that is wished, wherever the endpoint is; nobody else does.
func TestTrafficToLocalhost(t *testing.T) {
	w := newWorld(t)
	nstest.Sh(t, w.node, "sysctl -qw net.ipv4.conf.all.route_localnet=1")
	o := options()
	o.Localhost = true
	w.apply(newSnapshot().
		add(service.Service{Ports: tcp(80, 30080)}, "near", "10.10.10.2:8080").
		add(service.Service{Ports: tcp(80, 30081), ExternalPolicy: service.Local}, "far", "10.10.20.2:8080").
		add(service.Service{Ports: tcp(80, 30083)}, "empty").
		table(o))
	for _, to := range []string{"127.0.0.1:30080", "127.0.0.1:30081", "127.0.0.1:30083"} {
		w.several(packet("127.0.0.1", to))
	}
	w.several(packet("10.10.10.2", "10.20.30.62:30080"))

	// A neighbour who sends to 127.0.0.1 gets as far as the table, and no further.
	nstest.Sh(t, w.a, `sysctl -qw net.ipv4.conf.all.route_localnet=1
		ip route del local 127.0.0.0/8 dev lo table local || true
		ip route del local 127.0.0.1 dev lo table local || true
		ip route add 127.0.0.0/8 via 10.10.10.1`)
	nstest.Sh(t, w.node, `nft add table ip probe
		nft add chain ip probe before '{ type filter hook input priority -10; }'; nft add rule ip probe before iif br0 ip daddr 127.0.0.1 counter
		nft add chain ip probe after '{ type filter hook input priority 10; }'; nft add rule ip probe after iif br0 ip daddr 127.0.0.1 counter`)
	w.dial(packet("10.10.10.2", "127.0.0.1:8080"))
	for chain, want := range map[string]bool{"before": true, "after": false} {
		if got := !strings.Contains(nstest.Run(t, w.node, "nft", "list", "chain", "ip", "probe", chain), "packets 0 "); got != want {
			t.Errorf("a pod's packet to the node's loopback address is seen %s the table: %v", chain, got)
		}
	}
}

// ping sends one echo request and reports whether a reply came from the address itself.
func ping(t *testing.T, h *netns.Handle, to string) (answered bool) {
	t.Helper()
	nstest.Do(t, h, func() error {
		c, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // a test's socket
		if _, err := c.WriteTo([]byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
			return nil //nolint:nilerr // refused on the spot
		}
		b := make([]byte, 1500)
		for {
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return nil //nolint:nilerr // no answer
			}
			if b[0] == 0 && from.String() == to {
				answered = true
				return nil
			}
		}
	})
	return answered
}

func TestConnectionsSpreadOverTheEndpoints(t *testing.T) {
	w := newWorld(t)
	w.apply(newSnapshot().add(service.Service{ClusterIPs: addrs("10.100.87.105"), Ports: tcp(80)}, "webfrontend",
		"10.10.10.2:8080", "10.10.10.3:8080", "10.10.20.2:8080", "10.10.20.3:8080").table(options()))
	count := map[string]int{}
	for range 400 {
		count[w.agree(packet("10.10.10.2", "10.100.87.105:80"))]++
	}
	for ep, n := range count {
		if n < 60 || n > 140 { // five standard deviations around 100
			t.Errorf("%s got %d of 400", ep, n)
		}
	}
	if len(count) != 4 {
		t.Errorf("answers came from %v, want four endpoints", count)
	}
}
