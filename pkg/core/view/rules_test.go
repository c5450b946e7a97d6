// SPDX-License-Identifier: Apache-2.0

package view

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseIPTables(t *testing.T) {
	got := ParseIPTables("iptables nat", `*nat
:CNI-DN-f4b0 - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A POSTROUTING -s 10.88.1.2/32 -m comment --comment "name: \"mynet\" id: \"0a1b\"" -j CNI-77aa
-A CNI-77aa -d 10.88.1.0/24 -m comment --comment "name: \"mynet\" id: \"0a1b\"" -j ACCEPT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"mynet\" id: \"0a1b\"" -m multiport --dports 8080 -j CNI-DN-f4b0
-A CNI-DN-f4b0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.1.2:80
COMMIT
`)
	want := []Rule{
		{Table: "iptables nat", Chain: "CNI-77aa", Network: "mynet", Container: "0a1b", Text: `-A POSTROUTING -s 10.88.1.2/32 -m comment --comment "name: \"mynet\" id: \"0a1b\"" -j CNI-77aa`},
		{Table: "iptables nat", Chain: "CNI-DN-f4b0", Network: "mynet", Container: "0a1b", Text: `-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"mynet\" id: \"0a1b\"" -m multiport --dports 8080 -j CNI-DN-f4b0`},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestParseNFTables(t *testing.T) {
	got := ParseNFTables("nft ip cni_hostport", `table ip cni_hostport { # handle 3
	comment "CNI portmap plugin"
	chain hostports { # handle 1
		tcp dport 8080 dnat to 10.88.1.2:80 comment "0a1b" # handle 9
	}

	chain prerouting { # handle 4
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump hostports_all # handle 14
	}
}
`)
	got = append(got, ParseNFTables("nft inet cni_plugins_masquerade", `table inet cni_plugins_masquerade { # handle 8
	chain masq_checks { # handle 2
		ip saddr 10.88.1.2 ip daddr != 10.88.1.0/24 masquerade comment "6fd0, net: mynet, if: eth0, id: 0a1b" # handle 5
	}
}
`)...)
	want := []Rule{
		{Table: "nft ip cni_hostport", Chain: "hostports", Container: "0a1b", Text: "tcp dport 8080 dnat to 10.88.1.2:80", Handle: 9},
		{Table: "nft inet cni_plugins_masquerade", Chain: "masq_checks", Network: "mynet", Container: "0a1b", Text: "ip saddr 10.88.1.2 ip daddr != 10.88.1.0/24 masquerade", Handle: 5},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
