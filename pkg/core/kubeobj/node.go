// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

const (
	annotationASN   = "l3edge.dev/asn"
	annotationPeers = "l3edge.dev/peers"
)

// Member is what a cluster knows of one of its nodes.
type Member struct {
	Name       string
	PodSubnets []netip.Prefix // spec.podCIDRs; none: nobody has given it any yet
	Addresses  []netip.Addr   // internal ones
	Zone       string         // label topology.kubernetes.io/zone; empty: unknown
	Labels     map[string]string
	ASN        uint32   // annotation l3edge.dev/asn; 0: not said
	Peers      []string // annotation l3edge.dev/peers, as routed's --peer has them
	// Unwanted says why service addresses should not lead to the node now; empty: they may.
	Unwanted string
	Cordoned bool // that is why
}

// Equal reports that both say the same.
func (m Member) Equal(o Member) bool {
	return m.Name == o.Name && m.Zone == o.Zone && m.ASN == o.ASN && m.Unwanted == o.Unwanted && m.Cordoned == o.Cordoned && slices.Equal(m.PodSubnets, o.PodSubnets) &&
		slices.Equal(m.Addresses, o.Addresses) && slices.Equal(m.Peers, o.Peers) && maps.Equal(m.Labels, o.Labels)
}

// Node converts o. What is wrong is reported and left out; the Member holds what was right.
func Node(o *v1.Node) (Member, error) {
	var errs []error
	bad := func(at string, err error) { errs = append(errs, fmt.Errorf("%s: %w", at, err)) }
	m := Member{Name: o.Name, Zone: o.Labels[v1.LabelTopologyZone], Labels: o.Labels}
	m.Unwanted, m.Cordoned = unwanted(o)
	cidrs, field := o.Spec.PodCIDRs, "spec.podCIDRs"
	if len(cidrs) == 0 && o.Spec.PodCIDR != "" {
		cidrs = []string{o.Spec.PodCIDR}
	}
	for i, s := range cidrs {
		p, err := subnet.Parse(s)
		if err != nil {
			bad(fmt.Sprintf("%s[%d]", field, i), err)
			continue
		}
		m.PodSubnets = append(m.PodSubnets, p)
	}
	for i, a := range o.Status.Addresses {
		if a.Type != v1.NodeInternalIP {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		if err != nil {
			bad(fmt.Sprintf("status.addresses[%d]", i), fmt.Errorf("%q is not an address", a.Address))
			continue
		}
		m.Addresses = append(m.Addresses, ip)
	}
	if s, ok := o.Annotations[annotationASN]; ok {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n == 0 {
			bad("annotation "+annotationASN, fmt.Errorf("%q is not an AS number", s))
		}
		m.ASN = uint32(n)
	}
	// Peers are separated by spaces: a comma belongs to --peer's own language.
	m.Peers = strings.Fields(o.Annotations[annotationPeers])
	return m, errors.Join(errs...)
}

// unwanted says why a node should have no service addresses lead to it (KEP-1143 for the label).
func unwanted(o *v1.Node) (why string, cordoned bool) {
	if _, ok := o.Labels[v1.LabelNodeExcludeBalancers]; ok {
		return "label " + v1.LabelNodeExcludeBalancers, false
	}
	for _, t := range o.Spec.Taints {
		if t.Key == v1.TaintNodeUnschedulable {
			return "cordoned", true
		}
		if t.Key == v1.TaintNodeOutOfService {
			return "taint " + t.Key, true
		}
	}
	if o.Spec.Unschedulable {
		return "cordoned", true
	}
	return "", false
}
