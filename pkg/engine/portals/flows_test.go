// SPDX-License-Identifier: Apache-2.0

package portals

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// dns is a snapshot of one service of the kind, with these endpoints.
func dns(p service.Protocol, endpoints ...string) service.Snapshot {
	s := services("dns 10.100.0.10")
	for name, svc := range s.Services {
		svc.Ports[0].Protocol, svc.Ports[0].Port = p, 53
		var eps []service.Endpoint
		for _, e := range endpoints {
			eps = append(eps, service.Endpoint{Addr: netip.MustParseAddrPort(e), Ready: true, Serving: true})
		}
		s.Endpoints[service.PortName{Name: name}] = eps
		s.Services[name] = svc
	}
	return s
}

func TestStaleFlowsAreForgotten(t *testing.T) {
	const a, b, proxy = "10.10.20.4:5353", "10.10.20.5:5353", "10.20.30.62:39770"
	flow := func(by string) [2]string { return [2]string{"10.100.0.10:53", by} }
	for _, tt := range []struct {
		name          string
		before, after service.Snapshot
		mode          Mode
		stale         [][2]string
		kept          [][2]string
	}{
		{"an endpoint goes", dns(service.UDP, a, b), dns(service.UDP, b), NFTables, [][2]string{flow(a)}, [][2]string{flow(b), {a, a}}},
		{"all endpoints go", dns(service.UDP, a, b), dns(service.UDP), NFTables, [][2]string{flow(a), flow(b)}, nil},
		{"the service goes", dns(service.UDP, a), services("web 10.100.0.5"), NFTables, [][2]string{flow(a)}, [][2]string{{a, a}, {"192.0.2.1:53", "192.0.2.1:53"}}},
		{"the service comes, and a flow went past it", services("web 10.100.0.5"), dns(service.UDP, a), NFTables, [][2]string{flow("10.100.0.10:53")}, [][2]string{flow(a)}},
		{"the service comes, and a connection went past it", services("web 10.100.0.5"), dns(service.TCP, a), NFTables, [][2]string{flow("10.100.0.10:53")}, [][2]string{flow(a)}},
		{"the proxy's flows go on when the service comes", services("web 10.100.0.5"), dns(service.UDP, b), Userspace, [][2]string{flow(a)}, [][2]string{flow(proxy)}},
		{"the proxy's flows end with the service", dns(service.UDP, a), services("web 10.100.0.5"), Userspace, [][2]string{flow(proxy)}, nil},
	} {
		p := service.TCP
		for _, s := range []service.Snapshot{tt.before, tt.after} {
			for name, svc := range s.Services {
				if name.Name == "dns" {
					p = svc.Ports[0].Protocol
				}
			}
		}
		var ask func(Led) bool
		var few []Led
		r := newRig(tt.mode, func(o *Options) {
			o.Flows = func(of service.Protocol, led []Led, stale func(Led) bool) error {
				if of == p {
					ask, few = stale, led
				}
				return nil
			}
		})
		r.SetSnapshot(tt.before, nil)
		r.sync(t)
		if ask == nil {
			t.Fatalf("%s: nobody looked at first", tt.name)
		}
		r.SetSnapshot(tt.after, nil)
		ask = nil
		r.sync(t)
		if ask == nil {
			t.Fatalf("%s: nobody looked", tt.name)
		}
		for want, flows := range map[bool][][2]string{true: tt.stale, false: tt.kept} {
			for _, f := range flows {
				led := Led{netip.MustParseAddrPort(f[0]), netip.MustParseAddrPort(f[1])}
				if got := ask(led); got != want {
					t.Errorf("%s: %s answered by %s is stale: %v", tt.name, led.To, led.By, got)
				}
				if few != nil && slices.Contains(few, led) != want {
					t.Errorf("%s: %s answered by %s is not %v among %v", tt.name, led.To, led.By, want, few)
				}
			}
		}
	}
}

func TestFlowsAreNotWalkedWithoutNeed(t *testing.T) {
	walks := map[service.Protocol]int{}
	r := newRig(NFTables, func(o *Options) {
		o.Flows = func(p service.Protocol, _ []Led, _ func(Led) bool) error { walks[p]++; return nil }
	})
	const a, b = "10.10.20.4:53", "10.10.20.5:53"
	for _, tt := range []struct {
		name string
		s    service.Snapshot
		tcp  int
	}{
		{"at first", dns(service.TCP, a), 1}, {"an endpoint comes", dns(service.TCP, a, b), 1}, {"nothing", dns(service.TCP, a, b), 1},
		{"an endpoint goes", dns(service.TCP, b), 1}, {"the service goes", services("web 10.100.0.5"), 2}, {"and comes", dns(service.TCP, a), 3},
	} {
		r.SetSnapshot(tt.s, nil)
		r.sync(t)
		if want := map[service.Protocol]int{service.TCP: tt.tcp, service.UDP: 1, service.SCTP: 1}; !maps.Equal(walks, want) {
			t.Errorf("%s: walks %v, want %v", tt.name, walks, want)
		}
	}
}

func TestFlowsThatCouldNotBeForgottenAreTriedAgain(t *testing.T) {
	walks, fail := 0, errors.New("no conntrack")
	r := newRig(NFTables, func(o *Options) {
		o.Flows = func(p service.Protocol, _ []Led, _ func(Led) bool) error {
			if p != service.UDP {
				return nil
			}
			walks++
			return fail
		}
	})
	r.SetSnapshot(dns(service.UDP, "10.10.20.4:53"), nil)
	r.sync(t) // the portals are in force all the same
	r.sync(t)
	fail = nil
	r.sync(t)
	r.sync(t)
	if log := r.said(); walks != 3 || strings.Count(log, "stale flows stay") != 1 {
		t.Errorf("%d walks, want 3; log:\n%s", walks, log)
	}
}
