// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// randomServices draws services and endpoints from small pools, so that they collide, come and go.
func randomServices(r *rand.Rand) service.Snapshot {
	s := service.Snapshot{Services: map[service.Name]service.Service{}, Endpoints: map[service.PortName][]service.Endpoint{}}
	one := func(format string, n int) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr(fmt.Sprintf(format, r.IntN(n)))}
	}
	for i := range r.IntN(6) {
		svc := service.Service{
			Name: service.Name{Namespace: "default", Name: fmt.Sprint("svc", i)}, ClusterIPs: one("10.100.0.%d", 6),
			LoadBalancers: one("198.51.100.%d", 4), ExternalIPs: one("192.0.2.%d", 4),
			Ports:          []service.Port{{Protocol: service.TCP, Port: uint16(80 + r.IntN(2)), NodePort: uint16(30080 + r.IntN(3))}}, //nolint:gosec // small
			ExternalPolicy: service.Policy(r.IntN(2)), InternalPolicy: service.Policy(r.IntN(2)),                                       //nolint:gosec // small
		}
		if r.IntN(4) == 0 {
			svc.SourceRanges = []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("10.10.10.2/32")}
		}
		var eps []service.Endpoint
		for range r.IntN(5) {
			at := []string{"kubminion1", "kubminion2"}[r.IntN(2)]
			ready := r.IntN(3) > 0
			eps = append(eps, service.Endpoint{
				Addr: netip.MustParseAddrPort(fmt.Sprintf("10.10.%d0.%d:8080", 1+r.IntN(2), 2+r.IntN(2))), Node: at,
				Ready: ready, Serving: ready || r.IntN(2) == 0, Terminating: !ready,
			})
		}
		s.Services[svc.Name], s.Endpoints[service.PortName{Name: svc.Name}] = svc, eps
	}
	return s
}

// Whatever the services are, the proxy sends a client where Trace says, or not at all; and it listens where it has someone
// to send to. One thing is not its to do: to be silent, which a proxy that has accepted cannot; it resets.
func TestTheProxyAgreesWithTrace(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	m := portal.NewMemo(portal.Options{
		Node: node.Node{
			Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")},
			Addresses: []netip.Addr{netip.MustParseAddr("10.20.30.62")},
		},
		Nets: []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")},
	})
	p, _ := start(t, Options{})
	led, left := 0, 0
	for range 200 {
		tab := m.Compute(randomServices(r))
		ports, err := p.Apply(tab, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(ports) != len(tab.Portals) || len(p.fronts) != len(tab.Portals) {
			t.Fatalf("%d ports and %d fronts for %d portals", len(ports), len(p.fronts), len(tab.Portals))
		}
		for key := range tab.Portals {
			f := p.fronts[key]
			for _, client := range []string{"10.10.10.2", "10.10.10.3", "10.20.30.62", "172.16.0.100", "10.10.20.9"} {
				from := netip.MustParseAddr(client)
				want := portal.Trace(tab, portal.Packet{From: from, To: key.Addr, Protocol: key.Protocol, Port: key.Port})
				target := f.target.Load()
				for range 5 {
					got := target.choose(from, nil)
					if !target.admits(from) {
						got = nil
					}
					switch {
					case got == nil && want.Verdict != portal.Forward:
						left++
					case got == nil || !slices.Contains(want.Endpoints, got.Addr) || !f.opened:
						t.Fatalf("%s from %s: the proxy chose %v and listens: %v, Trace says %+v", key, client, got, f.opened, want)
					default:
						led++
					}
				}
			}
		}
	}
	if led < 1000 || left < 1000 {
		t.Errorf("%d led and %d left: that proves little", led, left)
	}
}
