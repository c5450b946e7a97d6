// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/quick"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

func TestMake(t *testing.T) {
	for _, row := range []struct {
		what string
		wish Wish
		want string // cluster, length, portal net; or the error
	}{
		{"the article's lab", Wish{Nodes: 4, Pods: 250}, "10.10.0.0/22 /24 10.100.0.0/16"},
		{"253 pods still fit in a /24", Wish{Nodes: 256, Pods: 253}, "10.10.0.0/16 /24 10.100.0.0/16"},
		{"254 do not", Wish{Nodes: 256, Pods: 254}, "10.10.0.0/15 /23 10.100.0.0/16"},
		{"one node", Wish{Nodes: 1, Pods: 110, Services: 200}, "10.10.0.0/25 /25 10.100.0.0/24"},
		{"the first choice is taken", Wish{Nodes: 256, Pods: 250, Avoid: prefixes("10.10.3.0/24", "10.100.0.0/14")}, "10.0.0.0/16 /24 10.1.0.0/16"},
		{"all of 10/8 is taken", Wish{Nodes: 16, Pods: 250, Avoid: prefixes("10.0.0.0/8")}, "172.16.0.0/20 /24 172.17.0.0/16"},
		{"asked for", Wish{Nodes: 4, Pods: 250, Cluster: prefixes("10.32.0.0/11")[0], Portal: prefixes("10.96.0.0/12")[0]}, "10.32.0.0/11 /24 10.96.0.0/12"},
		{"asked for and too small", Wish{Nodes: 300, Pods: 250, Cluster: prefixes("10.32.0.0/16")[0]}, "cluster: 10.32.0.0/16 is too small: a /15 is needed"},
		{"everything wrong at once", Wish{Nodes: 0, Pods: 1 << 20, Portal: netip.MustParsePrefix("10.96.0.1/12")},
			"nodes: 0 is not between 1 and 1048576\npods: 1048576 is not between 1 and 65536\nportal: 10.96.0.1/12 has host bits set: did you mean 10.96.0.0/12?"},
		{"both overlap", Wish{Nodes: 4, Pods: 250, Cluster: prefixes("10.20.0.0/16")[0], Portal: prefixes("10.20.30.0/16")[0].Masked(), Avoid: prefixes("10.20.30.0/24")},
			"cluster: 10.20.0.0/16 overlaps 10.20.30.0/24: one of the two would be unreachable\nportal: 10.20.0.0/16 overlaps 10.20.30.0/24: one of the two would be unreachable"},
		{"no room at all", Wish{Nodes: 1 << 20, Pods: 250}, "1048576 nodes of /24 need a /4: more than the largest private prefix, 10.0.0.0/8, has"},
		{"nothing is free", Wish{Nodes: 4, Pods: 250, Avoid: prefixes("0.0.0.0/0")}, "cluster: no /22 of the private prefixes is free of the networks to avoid\nportal: no /16 of the private prefixes is free of the networks to avoid"},
	} {
		t.Run(row.what, func(t *testing.T) {
			p, err := Make(row.wish)
			got := p.Cluster.String() + " /" + itoa(p.NodeBits) + " " + p.Portal.String()
			if err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func itoa(n int) string {
	return strings.TrimPrefix(netip.PrefixFrom(netip.IPv4Unspecified(), n).String(), "0.0.0.0/")
}

// What is asked for always fits, and nothing overlaps anything.
func TestEveryPlanHolds(t *testing.T) {
	avoid := prefixes("10.10.0.0/17", "10.100.0.0/14", "172.16.0.0/13")
	if err := quick.Check(func(nodes uint16, pods uint8) bool {
		w := Wish{Nodes: int(nodes)%2000 + 1, Pods: int(pods) + 1, Avoid: avoid}
		p, err := Make(w)
		if err != nil {
			t.Log(err)
			return false
		}
		ok := p.RoomNodes >= w.Nodes && p.RoomPods >= w.Pods && !p.Cluster.Overlaps(p.Portal) && p.Cluster.Overlaps(p.Last) && p.First != p.Last == (w.Nodes > 1)
		for _, a := range avoid {
			ok = ok && !a.Overlaps(p.Cluster) && !a.Overlaps(p.Portal)
		}
		return ok
	}, nil); err != nil {
		t.Error(err)
	}
}

func TestExplanation(t *testing.T) {
	p, err := Make(Wish{Nodes: 100, Pods: 250})
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "100x250.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(p.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), p.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
