// SPDX-License-Identifier: Apache-2.0

package portal

import (
	"fmt"
	"net/netip"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Packet is the first packet of a flow as a client on or behind this node sends it. For an ICMP echo request Protocol is
// ICMP or ICMPv6 and Port 0.
type Packet struct {
	From, To netip.Addr
	Protocol service.Protocol
	Port     uint16
}

// The protocols of a ping (IANA).
const (
	ICMP   service.Protocol = 1
	ICMPv6 service.Protocol = 58
)

// Verdict is what becomes of a packet.
type Verdict uint8

// Pass: the portal has nothing to say. Forward: it goes to one of the endpoints. Refuse: the client is told (TCP reset,
// ICMP port unreachable). Silence: it is dropped. Answer: the node itself answers the ping.
const (
	Pass Verdict = iota
	Forward
	Refuse
	Silence
	Answer
)

// String is one word.
func (v Verdict) String() string {
	return [...]string{"pass", "forward", "refuse", "silence", "answer"}[v]
}

// Outcome is what the Table does with one packet, and why in a sentence.
type Outcome struct {
	Verdict   Verdict
	Service   service.PortName // of Forward, Refuse and Silence, if one holds the address and port
	Endpoints []netip.AddrPort // of Forward: any of them
	Why       string
}

// Trace is the slow, obvious truth: whatever programs a Table must do the same.
func Trace(t Table, p Packet) Outcome {
	if p.Protocol == ICMP || p.Protocol == ICMPv6 {
		return ping(t, p)
	}
	portal, ok := t.Portals[Key{p.To, p.Protocol, p.Port}]
	if !ok {
		return stranger(t, p)
	}
	out := Outcome{Service: portal.Service}
	if len(portal.Sources) > 0 && !within(portal.Sources, p.From) {
		out.Verdict, out.Why = Silence, fmt.Sprintf("%s lies in none of the source ranges", p.From)
		return out
	}
	choice := portal.For(t.Inside(p.From))
	switch {
	case len(choice.Endpoints) > 0:
		out.Verdict, out.Endpoints, out.Why = Forward, choice.Endpoints, "one of the endpoints"
	case choice.OnEmpty == Drop:
		out.Verdict, out.Why = Silence, "policy Local, and no endpoint is on this node"
	default:
		out.Verdict, out.Why = Refuse, "the service has no endpoint"
	}
	return out
}

// stranger answers for an address and port that no portal holds.
func stranger(t Table, p Packet) Outcome {
	for key, portal := range t.Portals {
		if key.Addr == p.To && t.Guarded(p.To, portal.Kind) {
			return Outcome{Verdict: Refuse, Why: "the service has no such port"}
		}
	}
	if within(t.Nets, p.To) {
		return Outcome{Verdict: Refuse, Why: "no service has this address of the portal net"}
	}
	return Outcome{Why: "not an address of a portal"}
}

// ping is answered for a guarded address as long as one of its portals has an endpoint for clients on this node.
func ping(t Table, p Packet) Outcome {
	for key, portal := range t.Portals {
		if key.Addr == p.To && t.Guarded(p.To, portal.Kind) && len(portal.Endpoints) > 0 {
			return Outcome{Verdict: Answer, Why: "a service behind the address has an endpoint"}
		}
	}
	out := stranger(t, p)
	if out.Verdict == Refuse {
		out.Why = "no service behind the address has an endpoint"
	}
	return out
}

// Rewrite says why a flow's source address is changed on its way to an endpoint. There are no other reasons.
type Rewrite uint8

// Keep: it is not. Hairpin: the pod would answer itself past the node. ReturnPath: neither client nor endpoint is on
// this node, as far as is known, so the endpoint's answer would go to the client directly, from an address it never dialled.
// Loopback: nobody but the node itself can answer the node's 127.0.0.1.
const (
	Keep Rewrite = iota
	Hairpin
	ReturnPath
	Loopback
)

// String is the reason in words for people.
func (r Rewrite) String() string {
	return [...]string{
		"the source stays",
		"a pod balanced to itself would answer itself past the node",
		"neither client nor endpoint is on this node: the answer would not come back this way",
		"nobody else can answer the node's loopback address",
	}[r]
}

// Source decides whether the source of a flow from a client that dialled a portal is rewritten when it goes to the endpoint.
func (t Table) Source(client netip.Addr, dialled Key, endpoint netip.Addr) Rewrite {
	switch {
	case client.IsLoopback() && !endpoint.IsLoopback():
		return Loopback
	case client == endpoint && t.MeetsItself(endpoint):
		return Hairpin
	case !t.Inside(client) && !t.Inside(endpoint) && t.ComesBack(dialled, t.Portals[dialled]):
		return ReturnPath
	}
	return Keep
}

// MeetsItself reports that an endpoint may be a pod of this node, which a portal may lead to itself.
func (t Table) MeetsItself(endpoint netip.Addr) bool {
	return !t.KnowsPods(endpoint) || within(t.Pods, endpoint)
}
