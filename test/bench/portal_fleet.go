// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fleet is services 0 to n-1, each with per endpoints. One source of both what portald reads as files and what kube-proxy
// gets from its API server.
type fleet struct{ n, per int }

const (
	servicePort  = 80
	endpointPort = 8080
	sliceMost    = 1000 // endpoints of one EndpointSlice
)

// vip is the address of service i, inside 10.100.0.0/16.
func (f fleet) vip(i int) netip.AddrPort {
	return netip.AddrPortFrom(offset(10<<24|100<<16, uint32(i+256)), servicePort) //nolint:gosec // below 2^16
}

// endpoint is the address of endpoint j of service i after that many changes, inside 10.128.0.0/9. Versions close to
// each other share no address.
func (f fleet) endpoint(i, version, j int) netip.Addr {
	return offset(10<<24|128<<16, uint32(version%64<<17|i*f.per+j)) //nolint:gosec // below 2^23
}

// version is to which version of service i the endpoint belongs.
func (f fleet) version(endpoint netip.Addr) int {
	a := endpoint.As4()
	return int(binary.BigEndian.Uint32(a[:]) &^ (10<<24 | 128<<16) >> 17)
}

func offset(base, n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, base+n)))
}

func name(i int) string { return fmt.Sprintf("service-%05d", i) }

func (f fleet) service(i int) *v1.Service {
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name(i), UID: "s", CreationTimestamp: metav1.NewTime(time.Unix(1, 0))},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeClusterIP, ClusterIP: f.vip(i).Addr().String(), ClusterIPs: []string{f.vip(i).Addr().String()},
			IPFamilies: []v1.IPFamily{v1.IPv4Protocol}, SessionAffinity: v1.ServiceAffinityNone,
			Ports: []v1.ServicePort{{Name: "http", Protocol: v1.ProtocolTCP, Port: servicePort}},
		},
	}
}

// slices are the EndpointSlices of service i, sliceMost endpoints in each.
func (f fleet) slices(i, version int) (out []*discovery.EndpointSlice) {
	yes, node, port, portName, tcp := true, "elsewhere", int32(endpointPort), "http", v1.ProtocolTCP
	for j := range f.per {
		if j%sliceMost == 0 {
			out = append(out, &discovery.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "default", Name: fmt.Sprintf("%s-%d", name(i), len(out)), UID: "e", CreationTimestamp: metav1.NewTime(time.Unix(1, 0)),
					Labels: map[string]string{discovery.LabelServiceName: name(i)},
				},
				AddressType: discovery.AddressTypeIPv4,
				Ports:       []discovery.EndpointPort{{Name: &portName, Protocol: &tcp, Port: &port}},
			})
		}
		last := out[len(out)-1]
		last.Endpoints = append(last.Endpoints, discovery.Endpoint{
			Addresses: []string{f.endpoint(i, version, j).String()}, NodeName: &node,
			Conditions: discovery.EndpointConditions{Ready: &yes, Serving: &yes},
		})
	}
	return out
}

// manifest is the same as a person would write it: one YAML file for a service.
func (f fleet) manifest(i, version int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata:
  name: %s
spec:
  clusterIP: %s
  ports:
    - {name: http, port: %d}
`, name(i), f.vip(i).Addr(), servicePort)
	for _, s := range f.slices(i, version) {
		fmt.Fprintf(&b, `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %s
  labels: {kubernetes.io/service-name: %s}
addressType: IPv4
ports:
  - {name: http, protocol: TCP, port: %d}
endpoints:
`, s.Name, name(i), endpointPort)
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  - {addresses: [%s], nodeName: elsewhere, conditions: {ready: true, serving: true}}\n", e.Addresses[0])
		}
	}
	return []byte(b.String())
}
