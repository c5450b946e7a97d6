// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/l3edge/l3edge/pkg/core/service"
)

func ptr[T any](v T) *T { return &v }

var values = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})

func TestServiceWithEverything(t *testing.T) {
	got, ok, err := Service(&v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{"l3edge.dev/mode": "userspace"}},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeLoadBalancer, ClusterIP: "10.100.0.5", ClusterIPs: []string{"10.100.0.5", "fd00::5"},
			ExternalIPs: []string{"192.0.2.1"}, LoadBalancerSourceRanges: []string{" 203.0.113.7/24"},
			Ports: []v1.ServicePort{
				{Name: "http", Port: 80, NodePort: 30080},
				{Name: "dns", Protocol: v1.ProtocolUDP, Port: 53, NodePort: 30053},
			},
			InternalTrafficPolicy: ptr(v1.ServiceInternalTrafficPolicyLocal), ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyLocal,
			HealthCheckNodePort: 31000, SessionAffinity: v1.ServiceAffinityClientIP, TrafficDistribution: ptr("PreferClose"),
			PublishNotReadyAddresses: true,
		},
		Status: v1.ServiceStatus{LoadBalancer: v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{
			{IP: "198.51.100.1"}, {IP: "198.51.100.2", IPMode: ptr(v1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example"},
		}}},
	})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	want := service.Service{
		Name:          service.Name{Namespace: "shop", Name: "web"},
		ClusterIPs:    []netip.Addr{netip.MustParseAddr("10.100.0.5"), netip.MustParseAddr("fd00::5")},
		ExternalIPs:   []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		LoadBalancers: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
		SourceRanges:  []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		Ports: []service.Port{
			{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080},
			{Name: "dns", Protocol: service.UDP, Port: 53, NodePort: 30053},
		},
		InternalPolicy: service.Local, ExternalPolicy: service.Local, Distribution: service.PreferSameZone,
		NotReady: true, Affinity: 3 * time.Hour, HealthPort: 31000,
		Annotations: map[string]string{"l3edge.dev/mode": "userspace"},
	}
	if d := cmp.Diff(want, got, values); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestServicesThatAreNotOurs(t *testing.T) {
	for name, o := range map[string]*v1.Service{
		"an ExternalName service":              {Spec: v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "example.org"}},
		"a service labelled for another proxy": {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{labelProxyName: "other"}}},
	} {
		if _, ok, err := Service(o); ok || err != nil {
			t.Errorf("%s: ok %v, error %v", name, ok, err)
		}
	}
	got, ok, err := Service(&v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1.ServiceSpec{ClusterIP: "None"}})
	if !ok || err != nil || len(got.ClusterIPs) != 0 || got.Name.Namespace != "default" {
		t.Errorf("a headless service: %+v %v %v", got, ok, err)
	}
}

func TestServiceErrors(t *testing.T) {
	_, _, err := Service(&v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1.ServiceSpec{
		ClusterIP: "10.100.0", ExternalIPs: []string{"1.2.3.4", "x"}, LoadBalancerSourceRanges: []string{"10.0.0.0"},
		Ports: []v1.ServicePort{{Port: 0}, {Port: 1, NodePort: -5, Protocol: "ICMP"}},
	}})
	want := `spec.clusterIP: "10.100.0" is not an address
spec.externalIPs[1]: "x" is not an address
spec.loadBalancerSourceRanges[0]: "10.0.0.0" is not a prefix
spec.ports[0].port: 0 is not a port
spec.ports[1].protocol: "ICMP" is not TCP, UDP or SCTP
spec.ports[1].nodePort: -5 is not a port`
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A misspelt value would mean the default, which is the opposite of what was wanted.
func TestMisspeltValues(t *testing.T) {
	zero := int32(0)
	long := int32(86401)
	affinity := func(n *int32) *v1.SessionAffinityConfig {
		return &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: n}}
	}
	for want, change := range map[string]func(*v1.Service){
		`spec.type: "Loadbalancer" is not ClusterIP, NodePort, LoadBalancer or ExternalName`: func(o *v1.Service) { o.Spec.Type = "Loadbalancer" },
		`spec.externalTrafficPolicy: "local" is not Cluster or Local`:                        func(o *v1.Service) { o.Spec.ExternalTrafficPolicy = "local" },
		`spec.internalTrafficPolicy: "local" is not Cluster or Local`:                        func(o *v1.Service) { o.Spec.InternalTrafficPolicy = ptr(v1.ServiceInternalTrafficPolicy("local")) },
		`spec.sessionAffinity: "ClientIp" is not None or ClientIP`:                           func(o *v1.Service) { o.Spec.SessionAffinity = "ClientIp" },
		`spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not between 1 and 86400`: func(o *v1.Service) {
			o.Spec.SessionAffinity, o.Spec.SessionAffinityConfig = "ClientIP", affinity(&zero)
		},
		`spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not between 1 and 86400`: func(o *v1.Service) {
			o.Spec.SessionAffinity, o.Spec.SessionAffinityConfig = "ClientIP", affinity(&long)
		},
		`status.loadBalancer.ingress[0].ipMode: "vip" is not VIP or Proxy`: func(o *v1.Service) {
			o.Status.LoadBalancer.Ingress = []v1.LoadBalancerIngress{{IP: "198.51.100.1", IPMode: ptr(v1.LoadBalancerIPMode("vip"))}}
		},
	} {
		o := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1.ServiceSpec{Ports: []v1.ServicePort{{Port: 80}}}}
		change(o)
		if _, _, err := Service(o); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	for wish, heard := range map[string]bool{"": true, "PreferSameZone": true, "PreferSameNode": true, "PreferClose": true, "PreferSameZones": false} {
		o := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1.ServiceSpec{TrafficDistribution: &wish}}
		if _, ok, err := Service(o); !ok || err != nil {
			t.Errorf("trafficDistribution %q is a wish, not a condition: %v", wish, err)
		}
		if err := Unheeded(o); (err == nil) != heard {
			t.Errorf("trafficDistribution %q: %v", wish, err)
		}
	}
}

func slice(ports []discovery.EndpointPort, eps ...discovery.Endpoint) *discovery.EndpointSlice {
	return &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Labels: map[string]string{discovery.LabelServiceName: "web"}},
		AddressType: discovery.AddressTypeIPv4, Ports: ports, Endpoints: eps,
	}
}

// What an endpoint's conditions leave out is decided as the API documents it.
func TestConditions(t *testing.T) {
	for _, row := range []struct {
		name  string
		given discovery.EndpointConditions
		want  service.Endpoint
	}{
		{"nothing said is ready", discovery.EndpointConditions{}, service.Endpoint{Ready: true, Serving: true}},
		{"not ready is not serving", discovery.EndpointConditions{Ready: ptr(false)}, service.Endpoint{}},
		{"terminating but serving", discovery.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}, service.Endpoint{Serving: true, Terminating: true}},
		{"terminating and done", discovery.EndpointConditions{Ready: ptr(false), Serving: ptr(false), Terminating: ptr(true)}, service.Endpoint{Terminating: true}},
	} {
		got := conditions(discovery.Endpoint{Conditions: row.given})
		if d := cmp.Diff(row.want, got, values); d != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, d)
		}
	}
}

func TestSlicesThatAreNotOurs(t *testing.T) {
	fqdn, headless, orphan := slice(nil), slice(nil), slice(nil)
	fqdn.AddressType = discovery.AddressTypeFQDN
	headless.Labels[v1.IsHeadlessService] = ""
	orphan.Labels = nil
	for name, o := range map[string]*discovery.EndpointSlice{"FQDN": fqdn, "headless": headless, "of no service": orphan} {
		if _, ok, err := EndpointSlice(o); ok || err != nil {
			t.Errorf("%s: ok %v, error %v", name, ok, err)
		}
	}
	_, _, err := EndpointSlice(slice([]discovery.EndpointPort{{Port: ptr(int32(99999))}},
		discovery.Endpoint{Addresses: []string{"fd00::1"}}, discovery.Endpoint{}, discovery.Endpoint{Addresses: []string{"169.254.1.1"}}))
	want := "endpoints[0].addresses[0]: fd00::1 is not an IPv4 address\nendpoints[1].addresses: missing\n" +
		"endpoints[2].addresses[0]: 169.254.1.1 cannot be an endpoint\nports[0].port: 99999 is not a port"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func must(t *testing.T, o *discovery.EndpointSlice) Slice {
	t.Helper()
	s, ok, err := EndpointSlice(o)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return s
}

// A named target port resolves to different numbers in different pods: one slice for each number, one name for all.
func TestMerge(t *testing.T) {
	svc := service.Service{Name: service.Name{Namespace: "default", Name: "web"}, Ports: []service.Port{
		{Name: "http", Protocol: service.TCP, Port: 80}, {Name: "dns", Protocol: service.UDP, Port: 53},
	}}
	http := func(n int32) []discovery.EndpointPort { return []discovery.EndpointPort{{Name: ptr("http"), Port: &n}} }
	moving := discovery.Endpoint{Addresses: []string{"10.10.10.2"}}
	notReady := discovery.Endpoint{Addresses: []string{"10.10.10.2"}, Conditions: discovery.EndpointConditions{Ready: ptr(false)}}
	parts := []Slice{
		must(t, slice(http(8080), notReady)),
		must(t, slice(http(8080), moving)), // the same endpoint in two slices: the ready one counts
		must(t, slice(http(9090), discovery.Endpoint{Addresses: []string{"10.10.20.2"}})),
		must(t, slice([]discovery.EndpointPort{{Name: ptr("dns"), Port: ptr(int32(5353))}}, moving)), // TCP: not the service's port
	}
	ready := service.Endpoint{Ready: true, Serving: true}
	a, b := ready, ready
	a.Addr, b.Addr = netip.MustParseAddrPort("10.10.10.2:8080"), netip.MustParseAddrPort("10.10.20.2:9090")
	for i, want := range [][]service.Endpoint{{a, b}, nil} {
		if d := cmp.Diff(want, Merge(svc.Ports[i], parts), values); d != "" {
			t.Errorf("port %d (-want +got):\n%s", i, d)
		}
	}
}

func TestEndpoints(t *testing.T) {
	s, err := Endpoints(&v1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Subsets: []v1.EndpointSubset{{
			Addresses:         []v1.EndpointAddress{{IP: "10.10.10.2", NodeName: ptr("kubminion1")}},
			NotReadyAddresses: []v1.EndpointAddress{{IP: "10.10.10.3"}},
			Ports:             []v1.EndpointPort{{Port: 8080}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Slice{{Service: service.Name{Namespace: "default", Name: "web"}, Ports: []SlicePort{{Protocol: service.TCP, Endpoints: []service.Endpoint{
		{Addr: netip.MustParseAddrPort("10.10.10.2:8080"), Ready: true, Serving: true, Node: "kubminion1"},
		{Addr: netip.MustParseAddrPort("10.10.10.3:8080")},
	}}}}}
	if d := cmp.Diff(want, s, values); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
