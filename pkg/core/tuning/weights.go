// SPDX-License-Identifier: Apache-2.0

package tuning

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/subnet"
)

// Weights says how much of the traffic endpoints get, in proportion to one another, by address or by prefix (the pods of
// one node, say): "10.10.10.0/24=3,10.10.20.7=0". The longest prefix counts; an endpoint in none of them weighs 1. It is
// a text that parseWeights has accepted, so that Settings can be compared.
type Weights string

// MaxWeight is the most that an endpoint may weigh.
const MaxWeight = 100

func parseWeights(v string) (Weights, error) {
	var list []string
	var errs []error
	seen := map[netip.Prefix]bool{}
	for one := range strings.SplitSeq(v, ",") {
		p, w, err := parseWeight(one)
		switch {
		case err != nil:
			errs = append(errs, err)
		case seen[p]:
			errs = append(errs, fmt.Errorf("%s is there twice", p))
		}
		seen[p] = true
		list = append(list, fmt.Sprintf("%s=%d", p, w))
	}
	if len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	return Weights(strings.Join(list, ",")), nil
}

func parseWeight(one string) (p netip.Prefix, weight int, err error) {
	where, text, ok := strings.Cut(one, "=")
	if !ok {
		return p, 0, fmt.Errorf("%q is not address=weight", strings.TrimSpace(one))
	}
	where = strings.TrimSpace(where)
	if a, aerr := netip.ParseAddr(where); aerr == nil {
		p, err = a.Prefix(a.BitLen())
	} else {
		p, err = subnet.Parse(where)
	}
	return p, weight, errors.Join(err, number(&weight, strings.TrimSpace(text), 0, MaxWeight))
}

// Of is the weight of the endpoint at an address.
func (w Weights) Of(a netip.Addr) int {
	weight, bits := 1, -1
	if w == "" {
		return weight
	}
	for one := range strings.SplitSeq(string(w), ",") {
		if p, n, err := parseWeight(one); err == nil && p.Contains(a) && p.Bits() > bits {
			weight, bits = n, p.Bits()
		}
	}
	return weight
}
