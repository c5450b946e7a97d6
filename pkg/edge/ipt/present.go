// SPDX-License-Identifier: Apache-2.0

package ipt

import (
	"fmt"
	"slices"
)

// Present tells what of ours is in the nat table: "KUBE-PORTALS-CONTAINER: 3 rules, led to by PREROUTING", sorted.
func (f *Family) Present() ([]string, error) {
	have, err := f.read()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, j := range jumps {
		rules, ok := have.chains[j.to]
		switch {
		case ok && have.jumps[j.to] > 0:
			out = append(out, fmt.Sprintf("%s: %d rules, led to by %s", j.to, len(rules), j.from))
		case ok:
			out = append(out, fmt.Sprintf("%s: %d rules, but nothing leads to it", j.to, len(rules)))
		}
	}
	slices.Sort(out)
	return out, nil
}
