// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// header is what the endpoint reads before the client's bytes (the PROXY protocol, haproxy.org/download/2.9/doc/proxy-protocol.txt):
// who the client is and what it dialled. Both addresses are of one family.
func header(version int, client, dialled netip.AddrPort) []byte {
	v4 := client.Addr().Is4()
	if version == 1 {
		family := "TCP6"
		if v4 {
			family = "TCP4"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, client.Addr(), dialled.Addr(), client.Port(), dialled.Port())
	}
	family := byte(0x21) // AF_INET6, STREAM
	if v4 {
		family = 0x11 // AF_INET, STREAM
	}
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, family) // version 2, command PROXY
	addrs := append(client.Addr().AsSlice(), dialled.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addrs)+4)) //nolint:gosec // 12 or 36
	b = append(b, addrs...)
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, dialled.Port())
}
