// SPDX-License-Identifier: Apache-2.0

// Package topology is the article's lab as values: hosts, segments and services, and the files that each of them needs.
package topology

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// MLSName is the host name of the multilayer switch: what routed's --peer names on every node.
const MLSName = "mls"

// MLSASN is the switch's AS number, a private one of RFC 6996; the nodes are not told it.
const MLSASN = 64512

// PortalNet is where service addresses come from. It is never routed.
const PortalNet = "10.100.0.0/16"

// Segment is one network of the switch: a bridge that holds the switch's own address, with hosts on its ports.
type Segment struct {
	Bridge string
	Addr   netip.Prefix // the switch's address and the on-link prefix
	Nodes  bool         // BGP neighbours are welcome from here
}

// HostSpec is one host on a segment, with its only interface ens18.
type HostSpec struct {
	Name string
	Addr netip.Prefix // on ens18, with the on-link prefix
	Pods netip.Prefix // behind docker0; the zero Prefix: this host runs no pods
}

// Topology is what is cabled to the switch.
type Topology struct {
	Segments []Segment
	Hosts    []HostSpec
}

// Article is the lab of the article, and one client beyond the switch.
func Article() Topology {
	p := netip.MustParsePrefix
	return Topology{
		Segments: []Segment{
			{Bridge: "br20", Addr: p("10.20.30.1/24"), Nodes: true},
			{Bridge: "br192", Addr: p("192.168.10.1/24"), Nodes: true},
			{Bridge: "br172", Addr: p("172.16.0.1/24")},
		},
		Hosts: []HostSpec{
			{Name: "kubmasta", Addr: p("10.20.30.61/24")},
			{Name: "kubminion1", Addr: p("10.20.30.62/24"), Pods: p("10.10.10.0/24")},
			{Name: "kubminion2", Addr: p("10.20.30.63/24"), Pods: p("10.10.20.0/24")},
			{Name: "kubminion3", Addr: p("192.168.10.64/24"), Pods: p("10.10.30.0/24")},
			{Name: "kubminion4", Addr: p("192.168.10.65/24"), Pods: p("10.10.40.0/24")},
			{Name: "outside", Addr: p("172.16.0.100/24")},
		},
	}
}

// Nodes are the hosts that run pods.
func (t Topology) Nodes() []HostSpec {
	var out []HostSpec
	for _, h := range t.Hosts {
		if h.Pods.IsValid() {
			out = append(out, h)
		}
	}
	return out
}

// SegmentOf is the segment on whose network the host's address lies. A topology without it is a programmer's mistake.
func (t Topology) SegmentOf(h HostSpec) Segment {
	for _, s := range t.Segments {
		if s.Addr.Masked() == h.Addr.Masked() {
			return s
		}
	}
	panic("topology: " + h.Name + " is on no segment")
}

// HostsFile is the /etc/hosts of the host called self: every host by name, the switch by its address on self's segment.
func (t Topology) HostsFile(self string) string {
	mls := t.Segments[0]
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, h := range t.Hosts {
		if h.Name == self {
			mls = t.SegmentOf(h)
		}
	}
	fmt.Fprintf(&b, "%s %s\n", mls.Addr.Addr(), MLSName)
	for _, h := range t.Hosts {
		fmt.Fprintf(&b, "%s %s\n", h.Addr.Addr(), h.Name)
	}
	return b.String()
}

// Conflist is the node's /etc/cni/net.d/10-l3edge.conflist.
func (h HostSpec) Conflist() string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "l3edge",
  "plugins": [
    {"type": "bridge-l3", "bridge": "docker0", "subnet": "%s", "capabilities": {"ips": true, "mac": true}},
    {"type": "portal", "capabilities": {"portMappings": true}}
  ]
}
`, h.Pods)
}

// Service is a service of the lab: one TCP port, answered by endpoints that all listen on the same port.
type Service struct {
	Name       string
	VIP        netip.Addr
	Port       uint16
	TargetPort uint16
	Endpoints  []Endpoint
}

// Endpoint is where one backend of a Service listens.
type Endpoint struct {
	Addr netip.Addr
	Node string
}

// ArticleServices are the services that exist in the article's cluster: the two that Kubernetes makes for its API server,
// on kubmasta, and webfrontend, whose endpoints come with its pods.
func ArticleServices() []Service {
	a := netip.MustParseAddr
	masta := []Endpoint{{Addr: a("10.20.30.61"), Node: "kubmasta"}}
	return []Service{
		{Name: "kubernetes", VIP: a("10.100.0.2"), Port: 443, TargetPort: 443, Endpoints: masta},
		{Name: "kubernetes-ro", VIP: a("10.100.0.1"), Port: 80, TargetPort: 80, Endpoints: masta},
		{Name: "webfrontend", VIP: a("10.100.87.105"), Port: 80, TargetPort: 8080},
	}
}

// Manifest is the service as Kubernetes v1 objects in YAML: a Service and its EndpointSlice.
func (s Service) Manifest() string {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default}
spec:
  type: ClusterIP
  clusterIP: %[2]s
  clusterIPs: [%[2]s]
  ports: [{protocol: TCP, port: %[3]d, targetPort: %[4]d}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: "", protocol: TCP, port: %[4]d}]
endpoints:`, s.Name, s.VIP, s.Port, s.TargetPort)
	if len(s.Endpoints) == 0 {
		b.WriteString(" []")
	}
	for _, e := range s.Endpoints {
		fmt.Fprintf(&b, "\n- {addresses: [%s], nodeName: %s, conditions: {ready: true}}", e.Addr, e.Node)
	}
	b.WriteString("\n")
	return b.String()
}

// Snapshot is the services as a source would see them, for the environment of containers.
func Snapshot(services []Service) service.Snapshot {
	out := service.Snapshot{Services: map[service.Name]service.Service{}}
	for _, s := range services {
		name := service.Name{Namespace: "default", Name: s.Name}
		out.Services[name] = service.Service{
			Name: name, ClusterIPs: []netip.Addr{s.VIP},
			Ports: []service.Port{{Protocol: service.TCP, Port: s.Port}},
		}
	}
	return out
}
