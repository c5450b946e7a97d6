// SPDX-License-Identifier: Apache-2.0

// Package session keeps book of the sessions with all peers: where each stands, why, and what is to become of it.
package session

import (
	"net/netip"
	"time"
)

// State is where a session stands.
type State string

// States of a session: those of RFC 4271 section 8.2.2, and Unresolved before there is an address to connect to.
const (
	Unresolved  State = "unresolved"
	Idle        State = "idle"
	Active      State = "active"
	OpenSent    State = "open-sent"
	OpenConfirm State = "open-confirm"
	Established State = "established"
)

// Session is one peer as it stands now.
type Session struct {
	Peer     string     `json:"peer"` // as configured; the address for a dynamic neighbour
	Address  netip.Addr `json:"address,omitzero"`
	ASN      uint32     `json:"asn,omitempty"`
	RouterID netip.Addr `json:"routerID,omitzero"`
	State    State      `json:"state"`
	Since    time.Time  `json:"since"`
	Problem  string     `json:"problem,omitempty"` // why it is not established, as far as is known
	Dynamic  bool       `json:"dynamic,omitempty"`
	In       uint64     `json:"prefixesIn"`
	Out      uint64     `json:"prefixesOut"`
	Losses   uint64     `json:"losses"`        // times that it was established and lost
	Synced   bool       `json:"synced"`        // it has sent all it has (End-of-RIB)
	BFD      string     `json:"bfd,omitempty"` // up, down, init or admin-down, where it is on
	// Kept says that it is lost, and that what it told stays in use while it may be restarting (RFC 4724).
	Kept bool `json:"kept,omitempty"`
	// SameAs is the other configured peer that has the same address, and with it the session.
	SameAs string `json:"sameAs,omitempty"`
}
