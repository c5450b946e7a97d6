// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

const dns = `apiVersion: v1
kind: Service
metadata: {name: dns, namespace: kube-system}
spec:
  clusterIP: 10.100.0.10
  ports: [{name: dns, protocol: UDP, port: 53, targetPort: 5353}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, protocol: UDP, port: 5353}]
endpoints:
  - {addresses: [10.10.20.4]}
`

// echoUDP answers each packet with "name saw client-address".
func (w *world) echoUDP(h *netns.Handle, name, addr string) {
	w.t.Helper()
	var pc net.PacketConn
	nstest.Do(w.t, h, func() (err error) { pc, err = net.ListenPacket("udp4", addr); return err })
	w.t.Cleanup(func() { _ = pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo([]byte(name+" saw "+from.(*net.UDPAddr).IP.String()), from)
		}
	}()
}

// dig sends from a connected socket, which takes no answer but the portal's, until one comes.
func (w *world) dig(h *netns.Handle, addr string) (answer string) {
	w.t.Helper()
	nstest.Do(w.t, h, func() error {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // a test client
		buf := make([]byte, 1500)
		for range 10 {
			_, _ = c.Write([]byte("?")) // may tell of an ICMP error
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := c.Read(buf)
			if err == nil {
				answer = string(buf[:n])
				return nil
			}
			answer = err.Error()
		}
		return nil
	})
	return answer
}

func TestUDPPortal(t *testing.T) {
	w := newWorld(t)
	w.write("dns.yaml", dns)
	w.echoUDP(w.other, "far", "10.10.20.4:5353")
	for _, tt := range []struct {
		mode              portals.Mode
		fromPod, fromSelf string
	}{
		{portals.Userspace, "far saw 10.20.30.62", "far saw 10.20.30.62"},
		{portals.NFTables, "far saw 10.10.10.2", "far saw 10.20.30.62"},
	} {
		p := w.start("--mode=" + string(tt.mode))
		p.synced("the portal", func(r portals.Report) bool { return r.Mode == tt.mode && len(r.Portals) == 1 })
		if got := w.dig(w.client, "10.100.0.10:53"); got != tt.fromPod {
			t.Errorf("%s, from a pod: %q", tt.mode, got)
		}
		if got := w.dig(w.node, "10.100.0.10:53"); got != tt.fromSelf {
			t.Errorf("%s, from the node: %q", tt.mode, got)
		}
		p.stop()
	}
}

// A busy flow never ends by itself: the kernel asks the rules only about its first packet.
func TestBusyUDPFlowFollowsItsService(t *testing.T) {
	w := newWorld(t)
	w.write("dns.yaml", dns)
	w.echoUDP(w.other, "far", "10.10.20.4:5353")
	w.echoUDP(w.near, "near", "10.10.10.3:5353")
	p := w.start("--resync=0")
	p.synced("the portal", func(r portals.Report) bool { return len(r.Portals) == 1 })
	var c *net.UDPConn
	nstest.Do(t, w.client, func() (err error) {
		c, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 100, 0, 10), Port: 53})
		return err
	})
	defer c.Close() //nolint:errcheck // a test client
	ask := func() string {
		buf := make([]byte, 1500)
		_, _ = c.Write([]byte("?")) // may tell of an ICMP error
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Read(buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	eventually(t, "an answer", func() bool { return ask() == "far saw 10.10.10.2" })
	w.write("dns.yaml", strings.Replace(dns, "10.10.20.4", "10.10.10.3", 1))
	eventually(t, "the other endpoint's answer", func() bool { return ask() == "near saw 10.10.10.2" })
	w.write("dns.yaml", strings.Replace(dns, "  - {addresses: [10.10.20.4]}", "  []", 1))
	eventually(t, "a refusal", func() bool { return strings.Contains(ask(), "refused") })
	w.write("dns.yaml", dns)
	eventually(t, "an answer again", func() bool { return ask() == "far saw 10.10.10.2" })
	p.stop()
}

// ping asks once and reports whether that very address answers.
func (w *world) ping(h *netns.Handle, to string) (answered bool) {
	w.t.Helper()
	nstest.Do(w.t, h, func() error {
		c, err := net.ListenPacket("ip4:icmp", "0.0.0.0")
		if err != nil {
			return err
		}
		defer c.Close()                                                                         //nolint:errcheck // a test's socket
		id := uint16(rand.Uint32())                                                             //nolint:gosec // another flow than the last, which the kernel remembers
		echo := binary.BigEndian.AppendUint16([]byte{8, 0}, ^uint16((0x800+uint32(id))%0xffff)) //nolint:gosec // RFC 1071
		echo = append(binary.BigEndian.AppendUint16(echo, id), 0, 0)
		if _, err := c.WriteTo(echo, &net.IPAddr{IP: net.ParseIP(to)}); err != nil {
			return nil //nolint:nilerr // refused on the spot
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for b := make([]byte, 1500); !answered; {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return nil //nolint:nilerr // no answer
			}
			answered = b[0] == 0 && from.String() == to
		}
		return nil
	})
	return answered
}

func TestVIPsAnswerPingWhileAnEndpointIsReady(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p := w.start("--resync=0")
	p.synced("the portal", one)
	for name, from := range map[string]*netns.Handle{"a pod": w.client, "the node": w.node} {
		eventually(t, "an answer to "+name, func() bool { return w.ping(from, "10.100.87.105") })
	}
	w.write("web.yaml", webfrontend()+"  []\n")
	eventually(t, "no answer", func() bool { return !w.ping(w.client, "10.100.87.105") })
	p.stop()
}
