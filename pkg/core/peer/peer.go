// SPDX-License-Identifier: Apache-2.0

// Package peer is what is known beforehand of a BGP peer: how it is spoken to, and what it is told. It knows no session.
package peer

import (
	"net/netip"
	"time"
)

// Settings are how a peer is spoken to. Peers may share them.
type Settings struct {
	ASN          uint32     // 0: learned from the peer's OPEN
	Port         int        // 0: 179
	LocalAddress netip.Addr // connect from here; zero: the speaker's, where that is of the peer's family
	// Password signs every segment (TCP MD5, RFC 2385); empty: none.
	Password string
	// GTSM refuses packets that came through a router (RFC 5082); the peer must send with TTL 255, as we always do.
	GTSM bool
	// BFD watches the path (RFC 5880, asynchronous): a packet each way in this interval, down after three are missing.
	BFD          time.Duration // 0: off
	Hold         time.Duration // hold time; keepalives are sent three times as often. 0: the speaker's
	ConnectRetry time.Duration // the longest rest between two attempts to connect; 0: 1 s
	MaxPrefixes  uint32        // a peer that sends more is cut off for a minute; 0: no limit
	// LongLived is for how long routes are kept, as a last resort, after the restart time has passed (RFC 9494); 0: off.
	LongLived time.Duration
	AddPaths  uint8 // tell and ask for up to so many ways to a prefix (RFC 7911); 0: one
	Reflect   bool  // the peer is a client of ours: we are its route reflector (RFC 4456)
	// Prefer is the local preference of what the peer tells; 0: as it comes, which is 100 for other ASes.
	Prefer uint32
	Out    Out
}

// Out is what our announcements carry towards a peer.
type Out struct {
	MED         *uint32 // MULTI_EXIT_DISC; nil: none
	LocalPref   uint32  // LOCAL_PREF, which only peers of our own AS get; 0: 100
	Prepend     uint8   // our own ASN so many times more
	Communities []Community
}

// Peer is a router that we connect to.
type Peer struct {
	Name string // a name or an address; names are resolved again whenever there is no session
	// Interface says that Name is a link, and the peer whoever announces itself there as a router (RFC 4861).
	Interface bool
	Settings
}

// Fixed is the peer less what may change while its session stands.
func (p Peer) Fixed() Peer {
	p.Prefer, p.Out, p.MaxPrefixes, p.ConnectRetry = 0, Out{}, 0, 0
	if p.Password != "" { // the key may be another, not come or go
		p.Password = "a key"
	}
	return p
}
