// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

// Tables lists those of our tables that are in the calling thread's namespace, as "ip l3edge", sorted.
func Tables() (out []string, err error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for nf, name := range map[byte]string{2: "ip", 10: "ip6", 7: "bridge"} { // NFPROTO_* of linux/netfilter.h
		var some []string
		if err := c.dump(msgGetTable, nf, nil, func() { some = nil }, func(b []byte) {
			if t := attrString(b, attrTableName); slices.Contains([]string{mark.TableServices, mark.TableHostPorts, mark.TablePods}, t) {
				some = append(some, name+" "+t)
			}
		}); err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	slices.Sort(out)
	return out, nil
}
