// SPDX-License-Identifier: Apache-2.0

// Package service holds Services and their endpoints as plain values, whatever source they came from.
package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// Protocol is an IP protocol number (IANA): the ones a Service port may have.
type Protocol uint8

// The protocols of Service ports.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the protocol's name as Kubernetes spells it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Name identifies a Service.
type Name struct{ Namespace, Name string }

// String is namespace/name, as kubectl and kube-proxy print it.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace and name.
func (n Name) Compare(o Name) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name))
}

// PortName identifies one port of a Service; Port is empty for a Service with one unnamed port.
type PortName struct {
	Name
	Port string
}

// String is namespace/name:port, or namespace/name for an unnamed port, as kube-proxy prints it.
func (p PortName) String() string {
	if p.Port == "" {
		return p.Name.String()
	}
	return p.Name.String() + ":" + p.Port
}

// Policy says which endpoints may serve traffic: all of the cluster's, or only this node's.
type Policy uint8

// The values of internalTrafficPolicy and externalTrafficPolicy.
const (
	Cluster Policy = iota
	Local
)

// Distribution is where traffic should rather stay (spec.trafficDistribution) when endpoints carry no hints.
type Distribution uint8

// The values of trafficDistribution; PreferClose is the old name of PreferSameZone.
const (
	Anywhere Distribution = iota
	PreferSameZone
	PreferSameNode
)

// Port is one port of a Service. NodePort is 0 where there is none.
type Port struct {
	Name     string
	Protocol Protocol
	Port     uint16
	NodePort uint16
}

// Service is one Service with everything that decides how traffic to it is treated.
type Service struct {
	Name           Name
	ClusterIPs     []netip.Addr // empty for headless Services
	ExternalIPs    []netip.Addr
	LoadBalancers  []netip.Addr   // status.loadBalancer.ingress addresses with ipMode VIP
	SourceRanges   []netip.Prefix // who may reach the load-balancer addresses; empty: everybody
	Ports          []Port
	InternalPolicy Policy
	ExternalPolicy Policy
	Distribution   Distribution
	NotReady       bool          // publishNotReadyAddresses: endpoints count as ready whatever they say
	Affinity       time.Duration // ClientIP session affinity timeout; 0: none
	HealthPort     uint16        // healthCheckNodePort: where load balancers ask whether this node has endpoints; 0: none
	Annotations    map[string]string
}

// Endpoint is one address and port that serves one port of a Service.
type Endpoint struct {
	Addr        netip.AddrPort
	Ready       bool // conditions.ready
	Serving     bool // conditions.serving: true also for a ready endpoint
	Terminating bool
	Node        string // the node it runs on; empty: unknown
	Zone        string
	ForZones    []string // hints.forZones: the zones that should use it; empty: no hint
	ForNodes    []string // hints.forNodes, likewise
}

// Snapshot is everything a source knows at one moment. It is immutable once published.
type Snapshot struct {
	Services  map[Name]Service
	Endpoints map[PortName][]Endpoint
}
