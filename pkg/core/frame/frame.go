// SPDX-License-Identifier: Apache-2.0

// Package frame reads an Ethernet frame as far as tcpdump -q does: who speaks to whom, and how much.
package frame

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Packet is what a frame carries over IP.
type Packet struct {
	Src, Dst netip.AddrPort // port 0 where the protocol has none
	Protocol uint8          // IANA: 6 TCP, 17 UDP
	Length   int            // of what TCP or UDP carries, else of what IP does; bytes
	First    bool           // a TCP SYN without ACK: a connection begins
}

// Protocols with ports.
const (
	TCP = 6
	UDP = 17
)

// String is the line that tcpdump -nn -q writes, without the time.
func (p Packet) String() string {
	end := func(a netip.AddrPort) string {
		if a.Port() == 0 {
			return a.Addr().String()
		}
		return fmt.Sprintf("%s.%d", a.Addr(), a.Port())
	}
	name := map[uint8]string{TCP: "tcp", UDP: "udp", 1: "icmp", 58: "icmp6"}[p.Protocol]
	if name == "" {
		name = fmt.Sprintf("proto %d", p.Protocol)
	}
	family := "IP"
	if p.Src.Addr().Is6() {
		family = "IP6"
	}
	return fmt.Sprintf("%s %s > %s: %s %d", family, end(p.Src), end(p.Dst), name, p.Length)
}

// Has reports that one of the ends has the port.
func (p Packet) Has(port uint16) bool { return p.Src.Port() == port || p.Dst.Port() == port }

// Involves reports that one of the ends is the address.
func (p Packet) Involves(a netip.Addr) bool { return p.Src.Addr() == a || p.Dst.Addr() == a }

// Parse reads a frame; ok is false for what is not IP, or cut off before its ports.
func Parse(b []byte) (p Packet, ok bool) {
	if len(b) < 14 {
		return Packet{}, false
	}
	typ, b := binary.BigEndian.Uint16(b[12:]), b[14:]
	if typ == 0x8100 && len(b) >= 4 { // 802.1Q
		typ, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	switch typ {
	case 0x0800:
		return parse4(b)
	case 0x86dd:
		return parse6(b)
	}
	return Packet{}, false
}

func parse4(b []byte) (Packet, bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return Packet{}, false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total < head || len(b) < head {
		return Packet{}, false
	}
	p := Packet{Protocol: b[9], Length: total - head}
	later := binary.BigEndian.Uint16(b[6:])&0x1fff != 0 // a later fragment has no ports
	return p.ports(b[head:], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), later)
}

func parse6(b []byte) (Packet, bool) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return Packet{}, false
	}
	p := Packet{Protocol: b[6], Length: int(binary.BigEndian.Uint16(b[4:]))}
	return p.ports(b[40:], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), false)
}

// ports reads the header behind IP's.
func (p Packet) ports(b []byte, src, dst netip.Addr, later bool) (Packet, bool) {
	p.Src, p.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	if later || p.Protocol != TCP && p.Protocol != UDP {
		return p, true
	}
	if len(b) < 8 || p.Protocol == TCP && len(b) < 20 {
		return Packet{}, false
	}
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	if p.Protocol == UDP {
		p.Length = max(0, p.Length-8)
		return p, true
	}
	p.Length = max(0, p.Length-int(b[12]>>4)*4)
	p.First = b[13]&0x12 == 0x02 // SYN, not ACK
	return p, true
}
