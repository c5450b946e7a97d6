// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
)

func noCNI(string) ([]netip.Prefix, error) { return nil, nil }

func member(subnets ...string) kubeobj.Member {
	m := kubeobj.Member{Name: "kubminion1", Labels: map[string]string{"rack": "7", "zone": "east"}}
	for _, s := range subnets {
		m.PodSubnets = append(m.PodSubnets, netip.MustParsePrefix(s))
	}
	return m
}

// What a node of a cluster comes to: its peers, ASN, pod subnets and what it may learn.
func TestForMember(t *testing.T) {
	fabric := raw{
		Kubernetes: true, Groups: map[string]rawSettings{"tor": {ASN: 64512}}, Peers: []rawPeer{{Name: "spine"}},
		Nodes: []rawFor{
			{Match: map[string]string{"rack": "7"}, ASN: 65007, Peers: []rawPeer{{Name: "tor-7a", Group: "tor"}, {Name: "tor-7b"}}},
			{Match: map[string]string{"rack": "8"}, ASN: 65008, Peers: []rawPeer{{Name: "tor-8"}}},
			{Match: map[string]string{"rack": "7", "zone": "west"}, Peers: []rawPeer{{Name: "west"}}},
		},
	}
	annotated := member("10.10.10.0/24")
	annotated.ASN, annotated.Peers = 65099, []string{"own,group=tor"}
	zoned := member("10.10.10.0/24", "fd10:10:0:10::/64")
	zoned.Zone = "east"
	named := fabric
	named.PodSubnets, named.Zone = []string{"10.10.99.0/24"}, "west"
	for _, row := range []struct {
		name string
		raw  raw
		of   kubeobj.Member
		want string
	}{
		{"peers for all and for the node's rack", fabric, member("10.10.10.0/24"), "65007 [spine tor-7a tor-7b] [10.10.10.0/24] [10.10.0.0/16] "},
		{"annotations replace ASN and peers", fabric, annotated, "65099 [own] [10.10.10.0/24] [10.10.0.0/16] "},
		{"both families and the zone", fabric, zoned, "65007 [spine tor-7a tor-7b] [10.10.10.0/24 fd10:10:0:10::/64] [10.10.0.0/16 fd10:10::/48] east"},
		{"what the file names goes before the cluster", named, zoned, "65007 [spine tor-7a tor-7b] [10.10.99.0/24] [10.10.0.0/16] west"},
	} {
		c, err := parseFor(row.raw, &row.of, "kubminion1", noCNI)
		var names []string
		for _, p := range c.peers {
			names = append(names, p.Name)
		}
		got := fmt.Sprint(c.asn, " ", names, " ", c.podSubnets, " ", c.accept, " ", c.zone)
		if err != nil || c.asking || got != row.want {
			t.Errorf("%s: got %q (asking %v), %v; want %q", row.name, got, c.asking, err, row.want)
		}
	}
}

func TestBeforeTheClusterHasSpoken(t *testing.T) {
	c, err := parseFor(raw{Kubernetes: true}, nil, "kubminion1", noCNI)
	if err != nil || !c.asking {
		t.Errorf("asking %v, %v", c.asking, err)
	}
	if c, err = parseFor(raw{Peers: []rawPeer{{Name: "mls"}}, PodSubnets: []string{"10.10.10.0/24"}}, nil, "kubminion1", noCNI); err != nil || c.asking || c.api != nil {
		t.Errorf("without a cluster: asking %v, %v", c.asking, err)
	}
}

func TestForMemberReportsEverything(t *testing.T) {
	m := member()
	m.Peers = []string{"a,password-file=/etc/shadow", "b,asn=x"}
	_, err := parseFor(raw{Kubernetes: true, Nodes: []rawFor{{Peers: []rawPeer{{}}}}}, &m, "kubminion1", noCNI)
	for _, want := range []string{
		"nodes[0].match: names no label: what is for all nodes stands outside nodes",
		"nodes[0].peers[0].name: missing",
		"kubernetes: node kubminion1: annotation l3edge.dev/peers: a: a password-file is for groups in the file: use group=NAME",
		`node kubminion1: annotation l3edge.dev/peers: b,asn=x: "x" is not a valid asn`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	m.Peers = []string{"mls"}
	if _, err := parseFor(raw{Kubernetes: true}, &m, "kubminion1", noCNI); err == nil || !strings.Contains(err.Error(), "podSubnets: the cluster has given node kubminion1 none (spec.podCIDRs") {
		t.Errorf("a node without pod subnets: %v", err)
	}
}

// Who wants service addresses away counts for itself: the operator's drain and the cluster's cordon need both to end.
func TestWishesOfTheCluster(t *testing.T) {
	var v vips
	stage := func() string {
		_, s := v.now()
		return fmt.Sprint(int(s))
	}
	turn, changed := v.wish(true)
	if !changed || stage() != "1" {
		t.Errorf("cordoned: %v %s", changed, stage())
	}
	if _, again := v.wish(true); again {
		t.Error("the same wish is news")
	}
	v.enter(2) // the operator, departed
	if v.wish(false); stage() != "2" {
		t.Errorf("drained by the operator, not cordoned any more: %s", stage())
	}
	if v.gone(turn) {
		t.Error("an old wish comes true")
	}
	v.enter(0)
	if stage() != "0" {
		t.Errorf("undrained: %s", stage())
	}
	turn, _ = v.wish(true)
	if !v.gone(turn) || stage() != "2" {
		t.Errorf("after the courtesy: %s", stage())
	}
}
