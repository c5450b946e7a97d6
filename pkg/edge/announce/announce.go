// SPDX-License-Identifier: Apache-2.0

// Package announce tells the neighbours on a link, by one broadcast frame, which MAC an address has now.
package announce

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Send announces that addr is at mac, out of the interface with the given index in the calling thread's namespace: a
// gratuitous ARP (RFC 5227 section 3) or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6). Neighbours that
// know the address with another MAC take the new one; nobody answers.
func Send(index int, mac [6]byte, addr netip.Addr) error {
	protocol, to, packet := uint16(unix.ETH_P_ARP), [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, arp(mac, addr)
	if addr.Is6() {
		protocol, to, packet = unix.ETH_P_IPV6, [8]byte{0x33, 0x33, 0, 0, 0, 1}, advertisement(mac, addr)
	}
	protocol = protocol<<8 | protocol>>8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is buffered
	if err := unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index, Halen: 6, Addr: to}); err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	return nil
}

// arp is a request for addr by addr itself (RFC 826): Ethernet, IPv4, lengths 6 and 4, operation 1.
func arp(mac [6]byte, addr netip.Addr) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac[:]...)
	b = append(b, addr.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, addr.AsSlice()...)
}

// advertisement is the IPv6 packet of an unsolicited neighbour advertisement with the override flag, to all nodes.
func advertisement(mac [6]byte, addr netip.Addr) []byte {
	allNodes := netip.MustParseAddr("ff02::1")
	icmp := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // type, code, checksum, flags
	icmp = append(icmp, addr.AsSlice()...)
	icmp = append(icmp, 2, 1) // option: target link-layer address, in units of 8 bytes
	icmp = append(icmp, mac[:]...)
	pseudo := append(append(addr.AsSlice(), allNodes.AsSlice()...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))
	header := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255} // hop limit 255, or it is not believed
	header = append(append(header, addr.AsSlice()...), allNodes.AsSlice()...)
	return append(header, icmp...)
}

// checksum is RFC 1071's, over an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
