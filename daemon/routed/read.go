// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/subnet"
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
