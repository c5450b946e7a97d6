// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/subnet"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
)

// defaultMaxPrefixes is far above any cluster and far below what hurts.
const defaultMaxPrefixes = 250_000

// password reads a key for TCP MD5: the file's text without the line end. Others must not be able to read it.
func password(p *problems, place, path string) string {
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		p.add(place, err)
		return ""
	}
	if info.Mode().Perm()&0o077 != 0 {
		p.add(place, fmt.Errorf("%s is readable by others: chmod 600", path))
	}
	b, err := os.ReadFile(path)
	p.add(place, err)
	key := strings.TrimRight(string(b), "\r\n")
	if len(key) < 1 || len(key) > 80 {
		p.add(place, fmt.Errorf("%s holds %d bytes, a TCP MD5 key has 1 to 80", path, len(key)))
	}
	return key
}

func prefixes(p *problems, place string, in []string) []netip.Prefix {
	var out []netip.Prefix
	for i, s := range in {
		x, err := subnet.Parse(s)
		p.add(fmt.Sprintf("%s[%d]", place, i), err)
		out = append(out, x)
	}
	return out
}

func address(p *problems, place, s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.add(place, fmt.Errorf("%q is not an address", s))
	}
	return a
}

// routerID reads a BGP identifier, which looks like an IPv4 address whatever the network speaks (RFC 6286).
func routerID(p *problems, place, s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		p.add(place, fmt.Errorf("%q is not four numbers such as 10.20.30.62", s))
	}
	return a
}

func duration(p *problems, place, s string, least, most time.Duration) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most || d%time.Second != 0 {
		p.add(place, fmt.Errorf("%q is not a number of whole seconds from %s to %s", s, least, most))
	}
	return d
}

// interval reads BFD's.
func interval(p *problems, place, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 10*time.Millisecond || d > 10*time.Second {
		p.add(place, fmt.Errorf("%q is not a time from 10ms to 10s", s))
	}
	return d
}

func checkPort(p *problems, place string, port int) {
	if port < 0 || port > 65535 {
		p.add(place, fmt.Errorf("%d is not a port", port))
	}
}

// endpoint reads ADDRESS:PORT.
func endpoint(p *problems, place, s string) netip.AddrPort {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		p.add(place, fmt.Errorf("%q is not ADDRESS:PORT", s))
	}
	return a
}

// checkASN refuses the numbers that are nobody's: those in reserve (RFC 7300) and the stand-in for long ones (RFC 6793).
func checkASN(p *problems, place string, asn uint32) {
	switch asn {
	case 23456, math.MaxUint16, math.MaxUint32:
		p.add(place, fmt.Errorf("%d is reserved and nobody's ASN", asn))
	}
}

// checkPeer refuses addresses that cannot be a peer's.
func checkPeer(p *problems, place string, a, local netip.Addr) {
	switch {
	case a.Is4In6():
		p.add(place, fmt.Errorf("%s is an IPv4 address: write it so (%s)", a, a.Unmap()))
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		p.add(place, fmt.Errorf("%s is no host's address", a))
	case a == local:
		p.add(place, fmt.Errorf("%s is this node itself", a))
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		p.add(place, fmt.Errorf("%s is on every link: which one? (%s%%ens18)", a, a))
	}
}

// checkSelf reports peers that are this host.
func checkSelf(peers []bgp.Peer, self []netip.Addr) (errs []error) {
	for i, x := range peers {
		if a, err := netip.ParseAddr(x.Name); err == nil && slices.Contains(self, a) {
			errs = append(errs, fmt.Errorf("peers[%d].name: %s is this node itself", i, a))
		}
	}
	return errs
}
