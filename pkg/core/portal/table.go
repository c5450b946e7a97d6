// SPDX-License-Identifier: Apache-2.0

// Package portal decides what a node answers for every service address: Compute makes the Table, Trace explains it.
package portal

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// Key is what a client dials: one VIP (or node address), protocol and port.
type Key struct {
	Addr     netip.Addr
	Protocol service.Protocol
	Port     uint16
}

// String is PROTOCOL address:port, as in the article's log: "TCP 10.100.87.105:80".
func (k Key) String() string {
	return fmt.Sprintf("%s %s", k.Protocol, netip.AddrPortFrom(k.Addr, k.Port))
}

// Compare orders keys by address, protocol and port.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(k.Port, o.Port))
}

// Empty says what becomes of traffic to a portal that has no endpoint to offer.
type Empty uint8

// What to answer without endpoints: a refusal (TCP reset, ICMP port unreachable), or silence (policy Local).
const (
	Reject Empty = iota
	Drop
)

// Portal is what stands behind one Key. Endpoints are the chosen ones: sorted, without duplicates, maybe none.
type Portal struct {
	Service   service.PortName
	Endpoints []netip.AddrPort
	OnEmpty   Empty
	Affinity  time.Duration // ClientIP session affinity; 0: none
}

// Table is the whole answer of one node at one moment. It is immutable once published.
type Table struct {
	Portals map[Key]Portal
	Nets    []netip.Prefix // portal nets: addresses inside that no Service holds are rejected, never routed
}
