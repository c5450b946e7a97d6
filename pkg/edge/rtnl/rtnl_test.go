// SPDX-License-Identifier: Apache-2.0

package rtnl_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/rtnl"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// dial opens a conversation with h's namespace.
func dial(t testing.TB, h *netns.Handle) *rtnl.Conn {
	t.Helper()
	var c *rtnl.Conn
	nstest.Do(t, h, func() (err error) { c, err = rtnl.Dial(); return err })
	t.Cleanup(c.Close)
	return c
}

func want(id string) attach.Attachment {
	return attach.Decide(attach.Spec{
		Network: "net", ContainerID: id, IfName: "eth0", Bridge: "br.x", MTU: 1400, Gateway: true, DefaultRoute: true, Hairpin: true, Isolated: true,
		Addrs: []attach.Addr{
			{Addr: netip.MustParseAddr("10.0.0.2"), Subnet: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")},
			{Addr: netip.MustParseAddr("fd00::2"), Subnet: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")},
		},
	})
}

// attachPod does what ADD does and returns the bridge.
func attachPod(t testing.TB, host, pod *rtnl.Conn, ns *netns.Handle, a attach.Attachment) rtnl.Link {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := host.MakeBridge(a.Bridge)
	must(err)
	bridge, err := host.Link(a.Bridge.Name)
	must(err)
	must(host.Up(bridge.Index, false))
	bridge, err = host.Link(a.Bridge.Name)
	must(err)
	for _, p := range a.Bridge.Addrs {
		_, err := host.AddAddr(bridge.Index, p, false)
		must(err)
	}
	must(host.MakeVeth(a.Port, bridge.Index, a.Pod, ns.Fd()))
	eth0, err := pod.Link(a.Pod.Name)
	must(err)
	for _, p := range a.Pod.Addrs {
		_, err := pod.AddAddr(eth0.Index, p, false)
		must(err)
	}
	must(pod.Up(eth0.Index, false))
	must(host.StartPort(a.Port))
	must(host.Await(a.Port.Name))
	must(pod.Await(a.Pod.Name))
	for _, r := range a.Pod.Routes {
		must(pod.AddRoute(eth0.Index, r))
	}
	return bridge
}

func TestAPodsLinkIsMadeAsAskedAndWorks(t *testing.T) {
	node, ns := nstest.New(t), nstest.New(t)
	host, pod := dial(t, node), dial(t, ns)
	a := want("one")
	bridge := attachPod(t, host, pod, ns, a)
	if bridge.Kind != "bridge" || bridge.MAC != a.Bridge.MAC || bridge.MTU != 1400 || !bridge.Up {
		t.Errorf("bridge: %+v", bridge)
	}
	port, err := host.Link(a.Port.Name)
	if err != nil {
		t.Fatal(err)
	}
	eth0, err := pod.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	wantPort := rtnl.Link{Index: port.Index, Master: bridge.Index, Peer: eth0.Index, Name: a.Port.Name, Alias: "l3edge net one eth0", Kind: "veth",
		MAC: a.Port.MAC, MTU: 1400, Up: true, Running: true, Hairpin: true, Isolated: true}
	if diff := cmp.Diff(wantPort, port); diff != "" {
		t.Errorf("port (-want +got):\n%s", diff)
	}
	if eth0.MAC != a.Pod.MAC || eth0.MTU != 1400 || !eth0.Up || eth0.Peer != port.Index {
		t.Errorf("eth0: %+v", eth0)
	}
	routes, err := pod.Routes(0, eth0.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range a.Pod.Routes {
		found := false
		for _, have := range routes {
			found = found || have.Equal(r)
		}
		if !found {
			t.Errorf("route %s is missing from %v", r, routes)
		}
	}
	if out := nstest.Run(t, ns, "ip", "-d", "link", "show", "eth0"); !strings.Contains(out, "numtxqueues 1 ") || !strings.Contains(out, "numrxqueues 1 ") {
		t.Errorf("eth0 has more than one queue:\n%s", out)
	}
	reaches(t, ns, node, "10.0.0.1")
	reaches(t, ns, node, "fd00::1")
}

// reaches connects from one namespace to a server in the other at once: an address that still waited could not.
func reaches(t *testing.T, from, to *netns.Handle, addr string) {
	t.Helper()
	var l net.Listener
	nstest.Do(t, to, func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); return err })
	defer l.Close() //nolint:errcheck // a test
	nstest.Do(t, from, func() error {
		c, err := (&net.Dialer{Timeout: 5 * time.Second, FallbackDelay: -1}).Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// write makes the call elsewhere, as a child process would, and does not wait for its end.
func write(fd int, b []byte) error {
	b = bytes.Clone(b)
	go unix.Write(fd, b) //nolint:errcheck // the kernel answers on the socket
	return nil
}

func TestRemoveDoesItItselfWhenTheOtherProcessIsKilled(t *testing.T) {
	node, ns := nstest.New(t), nstest.New(t)
	host, pod := dial(t, node), dial(t, ns)
	a := want("one")
	attachPod(t, host, pod, ns, a)
	port, err := host.Link(a.Port.Name)
	if err != nil {
		t.Fatal(err)
	}
	nstest.Do(t, node, func() error { return host.Remove(port.Index, func(int, []byte) error { return nil }) })
	if _, err := pod.Link("eth0"); !errors.Is(err, rtnl.ErrNoLink) {
		t.Errorf("eth0 after removal: %v", err)
	}
}

func TestRemoveAnswersWhenBothEndsAreGone(t *testing.T) {
	node, ns := nstest.New(t), nstest.New(t)
	host, pod := dial(t, node), dial(t, ns)
	a := want("one")
	var fast time.Duration
	for range 5 { // the same names again and again: EEXIST would tell that Remove answered too early
		attachPod(t, host, pod, ns, a)
		port, err := host.Link(a.Port.Name)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		nstest.Do(t, node, func() error { return host.Remove(port.Index, write) })
		fast += time.Since(start)
		if _, err := host.Link(a.Port.Name); !errors.Is(err, rtnl.ErrNoLink) {
			t.Errorf("port after removal: %v", err)
		}
		if _, err := pod.Link("eth0"); !errors.Is(err, rtnl.ErrNoLink) {
			t.Errorf("eth0 after removal: %v", err)
		}
		if err := host.Remove(port.Index, write); err != nil {
			t.Errorf("a second removal: %v", err)
		}
	}
	t.Logf("mean time of a removal: %s", fast/5)
}

func TestManyRemovalsAtOnce(t *testing.T) {
	node := nstest.New(t)
	var wg sync.WaitGroup
	for i := range 40 {
		ns := nstest.New(t)
		host, pod := dial(t, node), dial(t, ns)
		a := want(fmt.Sprint("pod", i))
		a.Pod.Addrs, a.Pod.Routes = nil, nil
		attachPod(t, host, pod, ns, a)
		port, err := host.Link(a.Port.Name)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := host.Remove(port.Index, write); err != nil {
				t.Error(err)
			}
			if _, err := pod.Link("eth0"); !errors.Is(err, rtnl.ErrNoLink) {
				t.Errorf("%s: eth0 after removal: %v", a.Port.Name, err)
			}
		})
	}
	wg.Wait()
}

func TestTheKernelsWordsComeThrough(t *testing.T) {
	node := nstest.New(t)
	host := dial(t, node)
	a := want("one")
	if made, err := host.MakeBridge(a.Bridge); !made || err != nil {
		t.Fatal(made, err)
	}
	if made, err := host.MakeBridge(a.Bridge); made || err != nil {
		t.Errorf("again: %t, %v", made, err)
	}
	bridge, err := host.Link(a.Bridge.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Up(bridge.Index, false); err != nil {
		t.Fatal(err)
	}
	if err := host.AddRoute(bridge.Index, attach.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1")}); err == nil ||
		!strings.Contains(err.Error(), "Nexthop has invalid gateway") {
		t.Errorf("an impossible route: %v", err)
	}
	if err := host.MakeVeth(a.Port, bridge.Index, a.Pod, int(os.Stdin.Fd())); err == nil {
		t.Error("a pair into no namespace was made")
	}
	if _, err := host.Link("nobody"); !errors.Is(err, rtnl.ErrNoLink) {
		t.Errorf("nobody: %v", err)
	}
	ns := nstest.New(t)
	if err := host.MakeVeth(a.Port, bridge.Index, a.Pod, ns.Fd()); err != nil {
		t.Fatal(err)
	}
	if err := host.MakeVeth(a.Port, bridge.Index, a.Pod, ns.Fd()); !errors.Is(err, rtnl.ErrExists) {
		t.Errorf("the same pair again: %v", err)
	}
}

func TestDelAddrTakesTheOneOfThatLength(t *testing.T) {
	host := dial(t, nstest.New(t))
	if _, err := host.MakeBridge(attach.Bridge{Name: "br", MTU: 1500, MAC: attach.MAC{2, 0, 0, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	br, err := host.Link("br")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range [][2]string{{"10.3.0.1/16", "10.3.0.1/24"}, {"fd00::1/64", "fd00::2/64"}} {
		stays, goes := netip.MustParsePrefix(row[0]), netip.MustParsePrefix(row[1])
		for _, p := range []netip.Prefix{stays, goes} {
			if added, err := host.AddAddr(br.Index, p, false); err != nil || !added {
				t.Fatalf("%s: %t, %v", p, added, err)
			}
		}
		if err := host.DelAddr(br.Index, goes); err != nil {
			t.Fatal(err)
		}
		have, err := host.Addrs(br.Index, 0)
		if err != nil || !slices.Contains(have, stays) || slices.Contains(have, goes) {
			t.Errorf("without %s there is %v, %v", goes, have, err)
		}
	}
}

func TestUplink(t *testing.T) {
	node, router := nstest.New(t), nstest.New(t)
	host := dial(t, node)
	if _, err := host.Uplink(); !errors.Is(err, rtnl.ErrNoLink) {
		t.Errorf("without a default route: %v", err)
	}
	nstest.Veth(t, node, "ens18", "192.0.2.1/24", router, "sw", "192.0.2.2/24")
	nstest.Veth(t, node, "ens19", "198.51.100.1/24", router, "sw2", "198.51.100.2/24")
	nstest.Sh(t, node, "ip route add default via 198.51.100.2 metric 200; ip route add default via 192.0.2.2 metric 100; ip link set ens18 mtu 9000")
	up, err := host.Uplink()
	if err != nil || up.Name != "ens18" || up.MTU != 9000 {
		t.Errorf("uplink: %+v, %v", up, err)
	}
}

func TestAFullBridgeSaysSo(t *testing.T) {
	node, ns := nstest.New(t), nstest.New(t)
	host := dial(t, node)
	a := want("one")
	if _, err := host.MakeBridge(a.Bridge); err != nil {
		t.Fatal(err)
	}
	bridge, err := host.Link(a.Bridge.Name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1024 {
		a.Port.Name, a.Pod.Name = fmt.Sprint("p", i), fmt.Sprint("e", i)
		err := host.MakeVeth(a.Port, bridge.Index, a.Pod, ns.Fd())
		if i < 1023 && err != nil || i == 1023 && !errors.Is(err, rtnl.ErrBridgeFull) {
			t.Fatalf("port %d: %v", i, err)
		}
	}
	if _, err := host.Link("p1023"); !errors.Is(err, rtnl.ErrNoLink) {
		t.Errorf("the pair that did not fit: %v", err)
	}
}
