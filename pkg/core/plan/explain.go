// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// String explains the plan to somebody who has never divided a network.
func (p Plan) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("All pods      %-18s room for %d nodes, %d asked for", p.Cluster, p.RoomNodes, p.Wish.Nodes)
	say("One node      a /%-16d room for %d pods, %d asked for", p.NodeBits, p.RoomPods, p.Wish.Pods)
	say("Services      %-18s room for %d addresses", p.Portal, p.RoomVIPs)
	say("")
	say("node 1        %-18s its bridge is %s, its pods %s to %s", p.First, subnet.First(p.First), subnet.First(p.First).Next(), subnet.Last(p.First).Prev())
	for n := 1; n < min(p.Wish.Nodes-1, 3); n++ {
		say("node %-8d %s", n+1, p.Node(n))
	}
	if p.Wish.Nodes > 4 {
		say("...")
	}
	if p.Wish.Nodes > 1 {
		say("node %-8d %s", p.Wish.Nodes, p.Last)
	}
	say("")
	b.WriteString(p.Bits())
	say("")
	say("What /%d means: an address has 32 bits. The first %d are the same for all pods of a node, so a router needs to", p.NodeBits, p.NodeBits)
	say("remember one line for the node and none for its pods. The %d bits that remain count %d addresses; the lowest names", 32-p.NodeBits, p.RoomPods+3)
	say("the network, the next is the node's own on its bridge (the pods' gateway), and the highest is the broadcast address.")
	say("One bit more for the nodes would double their number and halve the pods of each.")
	say("")
	b.WriteString(p.table())
	return b.String()
}

// Bits draws an address of a pod in bits, and what they mean.
func (p Plan) Bits() string {
	a := subnet.First(p.Node(min(1, p.Wish.Nodes-1))).Next()
	var digits, marks strings.Builder
	cluster, node := p.Cluster.Bits(), p.NodeBits
	for i := range 32 {
		if i > 0 && i%8 == 0 {
			digits.WriteByte('.')
			marks.WriteByte(mark(i-1, cluster, node)) // under the point, as before it
		}
		digits.WriteByte('0' + a.As4()[i/8]>>(7-i%8)&1)
		marks.WriteByte(mark(i, cluster, node))
	}
	return fmt.Sprintf("%-14s%s\n%-14s%s\n%-14sc: %d bits say that it is a pod of this cluster (/%d); n: %d bits say of which node (/%d); p: %d bits say which pod\n",
		a, digits.String(), "", marks.String(), "", cluster, cluster, node-cluster, node, 32-node)
}

func mark(i, cluster, node int) byte {
	switch {
	case i < cluster:
		return 'c'
	case i < node:
		return 'n'
	}
	return 'p'
}

// table says what the switch and those behind it have to remember.
func (p Plan) table() string {
	return fmt.Sprintf(`The switch
  remembers   %d routes: one /%d for each node, and %s once
              if every node announces the portal net, that one has %d next hops: see that the switch has so many (ECMP)
  tells       those behind it 2 summaries instead of %d routes: %s and %s
  by hand     ip route %s %s NODE   (one such line for each node; l3ctl mls-config has BGP do it)
`, p.Routes, p.NodeBits, p.Portal, p.NextHops, p.Routes, p.Cluster, p.Portal, p.First.Addr(), netmask(p.NodeBits))
}

// netmask is the length as switches of the article's time write it.
func netmask(length int) netip.Addr {
	m := ^uint32(0) << (32 - length)
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}
