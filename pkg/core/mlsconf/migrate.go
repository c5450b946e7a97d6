// SPDX-License-Identifier: Apache-2.0

package mlsconf

import (
	"fmt"
	"net/netip"
	"strings"
)

// Static is one route that somebody wrote into the switch by hand.
type Static struct {
	Prefix netip.Prefix
	Via    netip.Addr
}

// words are how a vendor shows a route, removes a static one and puts it back.
type words struct{ show, remove, restore, distance string }

var vendorWords = map[string]words{
	"frr":   {"vtysh -c 'show ip route PREFIX'", "no ip route PREFIX NODE", "ip route PREFIX NODE", "a static route has distance 1, eBGP 20"},
	"sonic": {"vtysh -c 'show ip route PREFIX'", "sudo config route del prefix PREFIX nexthop NODE", "sudo config route add prefix PREFIX nexthop NODE", "a static route has distance 1, eBGP 20"},
	"bird":  {"birdc show route for PREFIX all", "take \"route PREFIX via NODE;\" out of its protocol static; birdc configure", "put it back; birdc configure", "a static route has preference 200, BGP 100"},
	"eos":   {"show ip route PREFIX", "no ip route PREFIX NODE", "ip route PREFIX NODE", "a static route has distance 1, BGP 200"},
	"nxos":  {"show ip route PREFIX", "no ip route PREFIX NODE", "ip route PREFIX NODE", "a static route has preference 1, eBGP 20"},
	"iosxe": {"show ip route NETWORK", "no ip route NETWORK MASK NODE", "ip route NETWORK MASK NODE", "a static route has distance 1, eBGP 20"},
	"junos": {"show route PREFIX exact", "delete routing-options static route PREFIX", "set routing-options static route PREFIX next-hop NODE", "a static route has preference 5, BGP 170"},
}

// fill puts a route into the words.
func fill(format string, s Static) string {
	return strings.NewReplacer("PREFIX", s.Prefix.String(), "NODE", s.Via.String(),
		"NETWORK", s.Prefix.Addr().String(), "MASK", netmask(s.Prefix.Bits()).String()).Replace(format)
}

// Migrate is the order in which static routes are replaced by BGP without losing a packet: at every moment one of the two
// leads to the node, and they lead to the same place.
func Migrate(vendor string, statics []Static) string {
	w := vendorWords[vendor]
	var b strings.Builder
	say := func(format string, args ...any) { b.WriteString(fmt.Sprintf(format, args...) + "\n") }
	say("1. Put the configuration above on the switch. Nothing changes: %s, so the static routes stay in force.", w.distance)
	say("2. Start routed on one node: routed --peer=SWITCH. Wait for \"established\" in: l3ctl status")
	say("3. On that node: l3ctl mls-verify. It says when the switch does not know the node's prefix or has it from elsewhere.")
	say("4. Do 2 and 3 on every other node.")
	say("5. One prefix after the other: see both ways, remove the static one, see the one that is left.")
	for _, s := range statics {
		say("   %-18s %s", s.Prefix, fill(w.show, s))
		say("   %-18s %s", "", fill(w.remove, s))
		say("   %-18s back: %s", "", fill(w.restore, s))
	}
	if len(statics) == 0 {
		say("   (with --static PREFIX=NODE for each of them the lines stand here)")
	}
	say("6. On any node: l3ctl mls-verify names no static route any more; ping a pod of every node.")
	say("Going back, at any step: put the static routes back. They are in force at once, whatever BGP says.")
	return b.String()
}
