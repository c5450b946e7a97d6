// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Community is a mark on an announcement: a standard one (RFC 1997) or a large one (RFC 8092).
type Community struct {
	text  string
	large bool
}

// String is what ParseCommunity reads.
func (c Community) String() string { return c.text }

// Large reports that it is a large one.
func (c Community) Large() bool { return c.large }

// wellKnown are the communities that have names: RFC 1997, 3765, 7999, 8326 and 9494.
var wellKnown = map[string]string{
	"no-export": "65535:65281", "no-advertise": "65535:65282", "no-export-subconfed": "65535:65283", "no-peer": "65535:65284",
	"blackhole": "65535:666", "graceful-shutdown": "65535:0", "no-llgr": "65535:7",
}

// ParseCommunity reads "64512:100", "64512:1:2" (large) or a well-known name.
func ParseCommunity(s string) (Community, error) {
	if number, ok := wellKnown[s]; ok {
		return Community{text: number}, nil
	}
	parts := strings.Split(s, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	bad := slices.ContainsFunc(parts, func(p string) bool { _, err := strconv.ParseUint(p, 10, bits); return err != nil })
	if bits == 0 || bad {
		return Community{}, fmt.Errorf("%q is not a community: N:N of 16 bits each, N:N:N of 32, no-export, no-advertise, no-export-subconfed, no-peer, blackhole, graceful-shutdown or no-llgr", s)
	}
	return Community{text: s, large: len(parts) == 3}, nil
}
