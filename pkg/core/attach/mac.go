// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
)

// MAC is an Ethernet address.
type MAC [6]byte

// MACOf is the MAC of an address: 0a:58 (locally administered, as kubenet chose it) and the address' last four bytes.
func MACOf(a netip.Addr) MAC {
	b := a.AsSlice()
	if len(b) < 4 {
		return MAC{}
	}
	return MAC(append([]byte{0x0a, 0x58}, b[len(b)-4:]...))
}

// random is a locally administered MAC that depends on s alone.
func random(s string) MAC {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	sum := h.Sum(nil)
	return MAC{0x0a, 0x59, sum[4], sum[5], sum[6], sum[7]}
}

// ParseMAC reads six hexadecimal bytes between colons or dashes and refuses what no interface may have: a group address
// or zero.
func ParseMAC(s string) (MAC, error) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(s))
	if err != nil || len(b) != 6 || len(s) != 17 {
		return MAC{}, fmt.Errorf("%q is not a MAC address", s)
	}
	m := MAC(b)
	if m[0]&1 != 0 || m == (MAC{}) {
		return MAC{}, fmt.Errorf("%s cannot be an interface's MAC address", m)
	}
	return m, nil
}

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}
