// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Objects that come, go, change and change hands: what the Book has told amounts to what a new Book tells of what is left,
// and it tells only of Services that were touched.
func TestABookTellsWhatChanged(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	b, told, objects := NewBook(), service.Delta{}, map[string]Object{}
	name := func() service.Name { return service.Name{Namespace: "default", Name: fmt.Sprint("s", r.IntN(4))} }
	for step := range 2000 {
		touched := map[service.Name]bool{}
		for range r.IntN(3) {
			key := fmt.Sprint("slice/", r.IntN(8))
			var o Object
			switch r.IntN(3) {
			case 0:
				n := name()
				key = "service/" + n.Name
				o.Service = &service.Service{Name: n, Ports: []service.Port{{Port: uint16(80 + r.IntN(2)), Protocol: service.TCP}}}
			case 1:
				for range 1 + r.IntN(2) {
					ep := service.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 10, 10, byte(r.IntN(4))}), 80), Ready: r.IntN(2) == 0}
					o.Slices = append(o.Slices, Slice{Service: name(), Ports: []SlicePort{{Protocol: service.TCP, Endpoints: []service.Endpoint{ep}}}})
				}
			}
			for _, o := range []Object{o, objects[key]} {
				if o.Service != nil {
					touched[o.Service.Name] = true
				}
				for _, s := range o.Slices {
					touched[s.Service] = true
				}
			}
			if o.Service == nil && o.Slices == nil {
				b.Delete(key)
				delete(objects, key)
				continue
			}
			b.Put(key, o)
			objects[key] = o
		}
		d := b.Take()
		for n := range d {
			if !touched[n] {
				t.Errorf("step %d: tells of %s, which nobody touched", step, n)
			}
		}
		told.Merge(d)
		fresh := NewBook()
		for key, o := range objects {
			fresh.Put(key, o)
		}
		if d := cmp.Diff(fresh.Take().Snapshot(), told.Snapshot(), values); d != "" {
			t.Fatalf("step %d (-fresh +told):\n%s", step, d)
		}
	}
	if b.Take() != nil {
		t.Error("tells of something when there is no news")
	}
}

// What the API's objects mean, end to end: each row is a Service default/web with ports http 80 and dns UDP 53, and slices.
func TestWhatObjectsMean(t *testing.T) {
	web := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: v1.ServiceSpec{ClusterIP: "10.100.0.5", Ports: []v1.ServicePort{
		{Name: "http", Port: 80}, {Name: "dns", Port: 53, Protocol: v1.ProtocolUDP},
	}}}
	svc, _, err := Service(web)
	if err != nil {
		t.Fatal(err)
	}
	port := func(name string, proto v1.Protocol, n int32) discovery.EndpointPort {
		return discovery.EndpointPort{Name: &name, Protocol: &proto, Port: &n}
	}
	ep := func(addrs ...string) discovery.Endpoint { return discovery.Endpoint{Addresses: addrs} }
	with := func(c discovery.EndpointConditions, addr string) discovery.Endpoint {
		return discovery.Endpoint{Addresses: []string{addr}, Conditions: c}
	}
	of := func(typ discovery.AddressType, labels map[string]string, ports []discovery.EndpointPort, eps ...discovery.Endpoint) *discovery.EndpointSlice {
		l := map[string]string{discovery.LabelServiceName: "web"}
		for k, v := range labels {
			l[k] = v
		}
		return &discovery.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: l}, AddressType: typ, Ports: ports, Endpoints: eps}
	}
	http := []discovery.EndpointPort{port("http", v1.ProtocolTCP, 8080)}
	for _, row := range []struct {
		sentence string
		slices   []*discovery.EndpointSlice
		want     string // http endpoints | dns endpoints; "-" marks one that is not ready, "+" one that serves while it ends
	}{
		{"a slice's port belongs to the Service's of the same name", []*discovery.EndpointSlice{of("IPv4", nil, http, ep("10.1.0.1"))}, "10.1.0.1:8080 |"},
		{"and the same protocol", []*discovery.EndpointSlice{of("IPv4", nil, []discovery.EndpointPort{port("http", v1.ProtocolUDP, 8080)}, ep("10.1.0.1"))}, "|"},
		{"one slice may serve several ports", []*discovery.EndpointSlice{of("IPv4", nil, append(http, port("dns", v1.ProtocolUDP, 5353)), ep("10.1.0.1"))}, "10.1.0.1:8080 | 10.1.0.1:5353"},
		{"a port of no name of the Service's serves nobody", []*discovery.EndpointSlice{of("IPv4", nil, []discovery.EndpointPort{port("web", v1.ProtocolTCP, 1)}, ep("10.1.0.1"))}, "|"},
		{"a slice without a port serves nobody", []*discovery.EndpointSlice{of("IPv4", nil, nil, ep("10.1.0.1"))}, "|"},
		{"a named target port has a number in each slice", []*discovery.EndpointSlice{
			of("IPv4", nil, http, ep("10.1.0.1")), of("IPv4", nil, []discovery.EndpointPort{port("http", v1.ProtocolTCP, 9090)}, ep("10.1.0.2"))}, "10.1.0.1:8080 10.1.0.2:9090 |"},
		{"IPv4 and IPv6 slices add up", []*discovery.EndpointSlice{of("IPv4", nil, http, ep("10.1.0.1")), of("IPv6", nil, http, ep("fd00::1"))}, "10.1.0.1:8080 [fd00::1]:8080 |"},
		{"FQDN slices are not for us", []*discovery.EndpointSlice{of("FQDN", nil, http, ep("example.org"))}, "|"},
		{"slices of headless services are not either", []*discovery.EndpointSlice{of("IPv4", map[string]string{v1.IsHeadlessService: ""}, http, ep("10.1.0.1"))}, "|"},
		{"of an endpoint's addresses the first counts", []*discovery.EndpointSlice{of("IPv4", nil, http, ep("10.1.0.1", "10.1.0.2"))}, "10.1.0.1:8080 |"},
		{"no conditions: ready", []*discovery.EndpointSlice{of("IPv4", nil, http, with(discovery.EndpointConditions{}, "10.1.0.1"))}, "10.1.0.1:8080 |"},
		{"not ready", []*discovery.EndpointSlice{of("IPv4", nil, http, with(discovery.EndpointConditions{Ready: ptr(false)}, "10.1.0.1"))}, "-10.1.0.1:8080 |"},
		{"serving while it ends", []*discovery.EndpointSlice{of("IPv4", nil, http, with(discovery.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}, "10.1.0.1"))}, "+10.1.0.1:8080 |"},
		{"an endpoint that moves between slices counts once", []*discovery.EndpointSlice{of("IPv4", nil, http, ep("10.1.0.1")), of("IPv4", nil, http, ep("10.1.0.1"))}, "10.1.0.1:8080 |"},
		{"by the readier of the two, whichever comes first", []*discovery.EndpointSlice{
			of("IPv4", nil, http, with(discovery.EndpointConditions{Ready: ptr(false)}, "10.1.0.1")), of("IPv4", nil, http, ep("10.1.0.1"))}, "10.1.0.1:8080 |"},
		{"or last", []*discovery.EndpointSlice{of("IPv4", nil, http, ep("10.1.0.1")), of("IPv4", nil, http, with(discovery.EndpointConditions{Ready: ptr(false)}, "10.1.0.1"))}, "10.1.0.1:8080 |"},
		{"twice in one slice is once", []*discovery.EndpointSlice{of("IPv4", nil, http, ep("10.1.0.1"), ep("10.1.0.1"))}, "10.1.0.1:8080 |"},
		{"one address on two numbers is two endpoints", []*discovery.EndpointSlice{
			of("IPv4", nil, http, ep("10.1.0.1")), of("IPv4", nil, []discovery.EndpointPort{port("http", v1.ProtocolTCP, 8081)}, ep("10.1.0.1"))}, "10.1.0.1:8080 10.1.0.1:8081 |"},
	} {
		b := NewBook()
		b.Put("service", Object{Service: &svc})
		for i, o := range row.slices {
			if s, ok, err := EndpointSlice(o); err != nil {
				t.Errorf("%s: %v", row.sentence, err)
			} else if ok {
				b.Put(fmt.Sprint("slice", i), Object{Slices: []Slice{s}})
			}
		}
		got, st := "", b.Take()[svc.Name]
		for i := range svc.Ports {
			if i > 0 {
				got += "| "
			}
			for _, e := range st.Of(i) {
				switch {
				case e.Terminating:
					got += "+"
				case !e.Ready:
					got += "-"
				}
				got += e.Addr.String() + " "
			}
		}
		if d := cmp.Diff(row.want, strings.TrimSpace(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", row.sentence, d)
		}
	}
}
