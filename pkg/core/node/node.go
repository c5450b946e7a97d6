// SPDX-License-Identifier: Apache-2.0

// Package node describes one node as its parts agree on it: its name, its pod subnets and its way out.
package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// Node is what routed publishes in /run/l3edge/node.json and everybody else reads.
type Node struct {
	Name            string         `json:"node"`
	PodSubnets      []netip.Prefix `json:"podSubnets"`
	ClusterPrefixes []netip.Prefix `json:"clusterPrefixes,omitempty"` // all pod subnets of the cluster lie inside these
	Addresses       []netip.Addr   `json:"addresses,omitempty"`       // the node's own, primary first
	Uplink          string         `json:"uplink,omitempty"`          // interface of the default route
	MTU             int            `json:"mtu,omitempty"`             // of the uplink, bytes
	Zone            string         `json:"zone,omitempty"`            // topology.kubernetes.io/zone; empty: unknown
}

// Parse reads a node file. Every mistake is reported, each with its place; on error the Node is zero.
func Parse(data []byte) (Node, error) {
	var n Node
	if err := json.Unmarshal(data, &n); err != nil {
		return Node{}, fmt.Errorf("node file: %w", err)
	}
	if err := n.Validate(); err != nil {
		return Node{}, err
	}
	return n, nil
}

// Validate reports every field that cannot be true, joined.
func (n Node) Validate() error {
	var errs []error
	if n.Name == "" {
		errs = append(errs, errors.New("node: name is missing"))
	}
	check := func(field string, ps []netip.Prefix) {
		for i, p := range ps {
			if !p.IsValid() {
				errs = append(errs, fmt.Errorf("%s[%d]: not a prefix", field, i))
			} else if p != p.Masked() {
				errs = append(errs, fmt.Errorf("%s[%d]: %s has host bits set: did you mean %s?", field, i, p, p.Masked()))
			}
		}
	}
	check("podSubnets", n.PodSubnets)
	check("clusterPrefixes", n.ClusterPrefixes)
	for i, a := range n.PodSubnets {
		for j, b := range n.PodSubnets[:i] {
			if a.IsValid() && b.IsValid() && a.Overlaps(b) {
				errs = append(errs, fmt.Errorf("podSubnets[%d]: %s overlaps podSubnets[%d] %s", i, a, j, b))
			}
		}
	}
	return errors.Join(errs...)
}

// Encode is the node file's text: indented JSON and a newline.
func (n Node) Encode() []byte {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		panic("node: encoding plain values: " + err.Error())
	}
	return append(b, '\n')
}

// ClusterPrefix guesses the prefix that holds the pod subnets of all nodes when nobody has said it:
// the /16 around an IPv4 pod subnet, the /48 around an IPv6 one, or the subnet itself if it is larger.
func ClusterPrefix(pod netip.Prefix) netip.Prefix {
	bits := 48
	if pod.Addr().Is4() {
		bits = 16
	}
	if pod.Bits() < bits {
		bits = pod.Bits()
	}
	return netip.PrefixFrom(pod.Addr(), bits).Masked()
}

// Owns reports the pod subnet of this node that holds a.
func (n Node) Owns(a netip.Addr) (netip.Prefix, bool) {
	for _, p := range n.PodSubnets {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// Overlaps names a pod subnet or cluster prefix of n that shares addresses with p.
func (n Node) Overlaps(p netip.Prefix) (netip.Prefix, bool) {
	_, b, ok := subnet.Overlap([]netip.Prefix{p}, append(append([]netip.Prefix{}, n.PodSubnets...), n.ClusterPrefixes...))
	return b, ok
}
