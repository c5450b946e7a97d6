// SPDX-License-Identifier: Apache-2.0

// Package mlsconf writes the switch's side of the sessions that routed has with it: one template for each vendor.
//
// Every configuration says the same: whoever speaks BGP from a segment of nodes is a neighbour; from it come only node
// prefixes of the cluster and the portal net, and not more than a few; to it go only node prefixes of the cluster.
package mlsconf

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"
)

// Vendors are those that there is a template for, in alphabetical order.
var Vendors = []string{"bird", "eos", "frr", "iosxe", "junos", "nxos", "sonic"}

// The private AS numbers that routed makes of a node's address unless it is given one: 4200000000 and 24 bits (RFC 6996).
const (
	FirstASN = 4200000000
	LastASN  = FirstASN + 1<<24 - 1
)

// Switch is what a configuration is made of.
type Switch struct {
	ASN      uint32
	NodeASN  uint32 // of all nodes alike (routed --asn); 0: each has its own, in FirstASN..LastASN
	RouterID netip.Addr
	Segments []netip.Prefix // of nodes, with the switch's own address: 10.20.30.1/24
	Cluster  netip.Prefix
	NodeBits int          // length of a node's prefix
	Portal   netip.Prefix // that nodes announce; zero: none may
	MaxNodes int          // sessions that a segment may have
	MaxPaths int          // equal ways that the switch uses
	MaxIn    int          // prefixes that one node may send
	Hold     int          // seconds; keepalives are a third of it
	BFD      int          // milliseconds between two packets, three of which may be missing; 0: off
	Password string       // TCP MD5; empty: none
}

// Keepalive is a third of the hold time (RFC 4271 section 10).
func (s Switch) Keepalive() int { return max(1, s.Hold/3) }

// FirstASN is the beginning of the nodes' AS numbers.
func (s Switch) FirstASN() uint32 { return cmp.Or(s.NodeASN, FirstASN) }

// LastASN is their end.
func (s Switch) LastASN() uint32 { return cmp.Or(s.NodeASN, LastASN) }

// Validate names everything that cannot be, and what the vendor cannot do.
func (s Switch) Validate(vendor string) error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(!slices.Contains(Vendors, vendor), "vendor: %q is none of %s", vendor, strings.Join(Vendors, ", "))
	bad(s.ASN == 0, "asn: missing")
	bad(s.ASN != 0 && s.ASN == s.NodeASN, "node-asn: %d is the switch's own; give the nodes another one", s.ASN)
	bad(!s.RouterID.Is4(), "router-id: missing")
	bad(len(s.Segments) == 0, "segment: missing; such as 10.20.30.1/24, the switch's own address with the network's length")
	for i, p := range s.Segments {
		bad(p == p.Masked(), "segment[%d]: %s names the network; give the switch's own address in it, such as %s", i, p, netip.PrefixFrom(p.Addr().Next(), p.Bits()))
	}
	bad(!s.Cluster.IsValid(), "cluster: missing")
	bad(s.NodeBits < s.Cluster.Bits() || s.NodeBits > 30, "node-bits: /%d does not lie in %s", s.NodeBits, s.Cluster)
	bad(s.Portal.IsValid() && s.Portal.Overlaps(s.Cluster), "portal: %s overlaps the cluster's %s", s.Portal, s.Cluster)
	bad(s.Hold < 3, "hold-time: %d is less than 3 seconds (RFC 4271)", s.Hold)
	bad(s.BFD != 0 && s.BFD < 10, "bfd: %d milliseconds is less than 10", s.BFD)
	bad(strings.ContainsAny(s.Password, " \t\n\"'?;{}"), "password: has a blank, a quote, a question mark, a semicolon or a brace")
	bad(vendor == "iosxe" && s.NodeASN == 0, "node-asn: IOS XE takes neighbours of a range only with an AS number that is named; "+
		"give all nodes one (routed --asn) and say it here")
	return errors.Join(errs...)
}

//go:embed vendors
var vendors embed.FS

// Render writes the configuration. The error is that of Validate.
func Render(vendor string, s Switch) (string, error) {
	if err := s.Validate(vendor); err != nil {
		return "", err
	}
	t := template.Must(template.New("").Funcs(template.FuncMap{
		"add": func(a, b int) int { return a + b },
	}).ParseFS(vendors, "vendors/*.tmpl"))
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, vendor+".tmpl", s); err != nil {
		return "", fmt.Errorf("render %s: %w", vendor, err)
	}
	return out.String(), nil
}

// netmask is the length as switches of the article's time write it.
func netmask(length int) netip.Addr {
	m := ^uint32(0) << (32 - length)
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}
