// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// Accept is a range of prefixes that may be learned: everything inside Prefix of a length from Min to Max.
type Accept struct {
	Prefix   netip.Prefix
	Min, Max int
}

// The longest prefixes accepted when nobody says otherwise: a node's pod subnet, not single hosts.
const (
	maxBits4 = 28
	maxBits6 = 112
)

// AcceptAll is everything inside p up to the usual length of a pod subnet (/28, /112), or p alone if it is longer.
func AcceptAll(p netip.Prefix) Accept {
	longest := maxBits6
	if p.Addr().Is4() {
		longest = maxBits4
	}
	return Accept{Prefix: p.Masked(), Min: p.Bits(), Max: max(longest, p.Bits())}
}

// ParseAccept reads "10.10.0.0/16", optionally followed by ",min=N" and ",max=N" (prefix lengths).
func ParseAccept(s string) (Accept, error) {
	parts := strings.Split(s, ",")
	p, err := subnet.Parse(parts[0])
	if err != nil {
		return Accept{}, err
	}
	a := AcceptAll(p)
	var errs []error
	for _, opt := range parts[1:] {
		key, val, _ := strings.Cut(opt, "=")
		n, err := strconv.Atoi(val)
		switch {
		case key != "min" && key != "max":
			errs = append(errs, fmt.Errorf("%q is not an option: min=N or max=N", opt))
		case err != nil || n < p.Bits() || n > p.Addr().BitLen():
			errs = append(errs, fmt.Errorf("%s is not a length from %d to %d", opt, p.Bits(), p.Addr().BitLen()))
		case key == "min":
			a.Min = n
		default:
			a.Max = n
		}
	}
	if len(errs) == 0 && a.Min > a.Max {
		errs = append(errs, fmt.Errorf("min=%d is longer than max=%d", a.Min, a.Max))
	}
	return a, errors.Join(errs...)
}

// String is what ParseAccept reads.
func (a Accept) String() string {
	s := a.Prefix.String()
	def := AcceptAll(a.Prefix)
	if a.Min != def.Min {
		s += ",min=" + strconv.Itoa(a.Min)
	}
	if a.Max != def.Max {
		s += ",max=" + strconv.Itoa(a.Max)
	}
	return s
}

// martians lead nowhere on any network: this host's own addresses, those of one link, groups of receivers (RFC 6890, RFC
// 4291). Nobody may learn them, whatever is accepted.
var martians = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// Policy says which learned prefixes may enter the kernel. The zero Policy refuses everything.
type Policy struct {
	Accept  []Accept
	Own     []netip.Prefix // this node's own pod subnets: nothing inside them is ever learned
	Default bool           // the default route is wanted
}

// Refuses gives the reason why a prefix may not be learned, or "" when it may.
func (p Policy) Refuses(prefix netip.Prefix) string {
	if !prefix.IsValid() || prefix != prefix.Masked() {
		return "not a prefix"
	}
	if i := slices.IndexFunc(p.Own, func(own netip.Prefix) bool { return subnet.Contains(own, prefix) }); i >= 0 {
		return fmt.Sprintf("inside own pod subnet %s", p.Own[i])
	}
	if prefix.Bits() == 0 {
		if p.Default {
			return ""
		}
		return "default route not wanted"
	}
	if i := slices.IndexFunc(martians, func(m netip.Prefix) bool { return subnet.Contains(m, prefix) }); i >= 0 {
		return fmt.Sprintf("inside %s, which no router leads to", martians[i])
	}
	reason := "outside the accepted prefixes"
	for _, a := range p.Accept {
		if !subnet.Contains(a.Prefix, prefix) {
			continue
		}
		switch {
		case prefix.Bits() < a.Min:
			reason = fmt.Sprintf("shorter than /%d in %s", a.Min, a.Prefix)
		case prefix.Bits() > a.Max:
			reason = fmt.Sprintf("longer than /%d in %s", a.Max, a.Prefix)
		default:
			return ""
		}
	}
	return reason
}

// Never are the prefixes that Refuses refuses though they may be inside Accept: who passes on what it learns leaves them out.
func (p Policy) Never() []Accept {
	var out []Accept
	if !p.Default {
		out = append(out, Accept{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, Accept{Prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
	}
	for _, x := range slices.Concat(p.Own, martians) {
		out = append(out, Accept{Prefix: x, Min: x.Bits(), Max: x.Addr().BitLen()})
	}
	return out
}

// refusesHop gives the reason why no packet may be sent to a next hop, or "".
func (p Policy) refusesHop(nh netip.Addr) string {
	for _, own := range p.Own {
		if own.Contains(nh) {
			return fmt.Sprintf("next hop %s is inside own pod subnet %s", nh, own)
		}
	}
	return ""
}
