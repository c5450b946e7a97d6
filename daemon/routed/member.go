// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
)

// rawFor is what the configuration says of the nodes that bear certain labels, so that one file serves a whole fabric.
type rawFor struct {
	Match map[string]string `json:"match"`
	ASN   uint32            `json:"asn"`
	Peers []rawPeer         `json:"peers"`
}

// matches reports that a node bears all the labels.
func (f rawFor) matches(labels map[string]string) bool {
	for key, want := range f.Match {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// forMember is r as it is for one node of a cluster: with the peers of every entry of nodes that matches, the ASN of the
// last, and the pod subnets that the cluster has given it unless r names some. The node's annotations go before all: they
// replace the ASN and the peers.
func (r raw) forMember(m kubeobj.Member) (raw, error) {
	var errs []error
	r.Peers = slices.Clone(r.Peers)
	for _, f := range r.Nodes {
		if !f.matches(m.Labels) {
			continue
		}
		r.Peers = append(r.Peers, f.Peers...)
		inherit(&f.ASN, r.ASN)
		r.ASN = f.ASN
	}
	inherit(&m.ASN, r.ASN)
	r.ASN = m.ASN
	for i, s := range m.Peers {
		if i == 0 {
			r.Peers = nil
		}
		p, err := parsePeer(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: annotation l3edge.dev/peers: %w", m.Name, err))
		}
		if p.Pass != "" { // whoever may annotate a node may not choose a file of it to read
			errs = append(errs, fmt.Errorf("node %s: annotation l3edge.dev/peers: %s: a password-file is for groups in the file: use group=NAME", m.Name, p.Name+p.Interface))
		}
		r.Peers = append(r.Peers, p)
	}
	if len(r.PodSubnets) == 0 {
		for _, p := range m.PodSubnets {
			r.PodSubnets = append(r.PodSubnets, p.String())
		}
	}
	if r.Zone == "" {
		r.Zone = m.Zone
	}
	return r, errors.Join(errs...)
}

// checkNodes reports what is wrong with entries for nodes, also those of others: the file is for all of them.
func checkNodes(p *problems, list []rawFor, groups groups) {
	for i, f := range list {
		place := fmt.Sprintf("nodes[%d]", i)
		if len(f.Match) == 0 {
			p.add(place+".match", errors.New("names no label: what is for all nodes stands outside nodes"))
		}
		checkASN(p, place+".asn", f.ASN)
		var inner problems
		readPeers(&inner, f.Peers, groups)
		for _, err := range inner.errs {
			p.errs = append(p.errs, fmt.Errorf("%s.%w", place, err))
		}
	}
}
