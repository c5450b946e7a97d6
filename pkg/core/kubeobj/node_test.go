// SPDX-License-Identifier: Apache-2.0

package kubeobj

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNode(t *testing.T) {
	got, err := Node(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "kubminion1", Labels: map[string]string{v1.LabelTopologyZone: "east", "rack": "7"},
			Annotations: map[string]string{annotationASN: "65001", annotationPeers: "tor-a,asn=64512 tor-b"},
		},
		Spec: v1.NodeSpec{PodCIDR: "10.10.10.0/24", PodCIDRs: []string{"10.10.10.0/24", "fd10::/64"}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{
			{Type: v1.NodeHostName, Address: "kubminion1"}, {Type: v1.NodeInternalIP, Address: "10.20.30.62"},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Member{
		Name: "kubminion1", Zone: "east", Labels: map[string]string{v1.LabelTopologyZone: "east", "rack": "7"}, ASN: 65001, Peers: []string{"tor-a,asn=64512", "tor-b"},
		PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24"), netip.MustParsePrefix("fd10::/64")},
		Addresses:  []netip.Addr{netip.MustParseAddr("10.20.30.62")},
	}
	if d := cmp.Diff(want, got, values); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !got.Equal(want) || got.Equal(Member{}) {
		t.Error("Equal does not tell them apart")
	}
}

func TestNodeReportsEverythingAndKeepsWhatIsRight(t *testing.T) {
	got, err := Node(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{annotationASN: "4294967296"}},
		Spec:       v1.NodeSpec{PodCIDRs: []string{"10.10.10.0/33", "10.10.20.0/24"}},
		Status:     v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "x"}}},
	})
	want := `spec.podCIDRs[0]: "10.10.10.0/33" is not a prefix
status.addresses[0]: "x" is not an address
annotation l3edge.dev/asn: "4294967296" is not an AS number`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if len(got.PodSubnets) != 1 {
		t.Errorf("pod subnets %v", got.PodSubnets)
	}
}

func TestNodesThatServiceAddressesShouldAvoid(t *testing.T) {
	for want, o := range map[string]*v1.Node{
		"":         {},
		"cordoned": {Spec: v1.NodeSpec{Unschedulable: true}},
		"label node.kubernetes.io/exclude-from-external-load-balancers": {ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1.LabelNodeExcludeBalancers: ""}}},
		"taint node.kubernetes.io/out-of-service":                       {Spec: v1.NodeSpec{Taints: []v1.Taint{{Key: v1.TaintNodeOutOfService}}}},
	} {
		if m, err := Node(o); err != nil || m.Unwanted != want || m.Cordoned != (want != "" && !strings.HasPrefix(want, "label")) {
			t.Errorf("got %q, %v; want %q", m.Unwanted, err, want)
		}
	}
}
