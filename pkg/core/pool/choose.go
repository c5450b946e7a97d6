// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Choose says which address a pod gets of each set: the one that is asked for, else one that it has already (an ADD that was
// interrupted has claimed it), else, where the address is zero, the next that is free. Every address that is asked for and
// cannot be given is named.
func Choose(sets []Set, asked, had []netip.Addr) ([]netip.Addr, error) {
	asked = slices.Clone(asked)
	out := make([]netip.Addr, len(sets))
	var errs []error
	for i, set := range sets {
		n := slices.IndexFunc(asked, func(a netip.Addr) bool { _, ok := set.Subnet(a); return ok })
		if n < 0 {
			if n = slices.IndexFunc(had, func(a netip.Addr) bool { _, ok := set.Find(a); return ok }); n >= 0 {
				out[i] = had[n]
			}
			continue
		}
		out[i] = asked[n]
		asked = slices.Delete(asked, n, n+1)
		if _, ok := set.Find(out[i]); !ok {
			r, _ := set.Subnet(out[i])
			errs = append(errs, fmt.Errorf("asked-for address %s cannot be given: pods of %s have %s to %s without the gateway %s", out[i], r.Subnet, r.First, r.Last, r.Gateway))
		}
	}
	for _, a := range asked {
		errs = append(errs, fmt.Errorf("asked-for address %s is in no range of this network, or a second one of its range", a))
	}
	return out, errors.Join(errs...)
}
