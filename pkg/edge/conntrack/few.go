// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// A list of flows by netlink locks every place of the kernel's table, of which there are a quarter of a million as a
// rule, full or empty: sixteen milliseconds where this was measured. /proc/net/nf_conntrack passes over the empty ones:
// a tenth of a millisecond. But it counts its way, a page at a time, so that a flow may be left out when another ends
// meanwhile. It is believed only when it shows as many as the kernel counts, before and after, and is asked when they are few.

// fewFlows are read from /proc at the cost of a microsecond or two each, and no more than fifty pages.
const fewFlows = 1000

// pickFew returns the requests that delete those of the few flows of the calling thread's namespace that which picks. It does not know
// when they are many, when the kernel has no such file, or when it does not keep still.
func pickFew(family byte, which func(Flow) bool) (gone [][]byte, known bool) {
	for range 3 { // what had run out is dropped in the first reading
		before, ok := countFlows()
		if !ok || before > fewFlows {
			return nil, false
		}
		if before == 0 {
			return nil, true
		}
		text, ok := readFile("/proc/thread-self/net/nf_conntrack")
		if !ok {
			return nil, false
		}
		lines := bytes.Count(text, []byte("\n"))
		if after, ok := countFlows(); !ok || after != before || lines != before {
			continue
		}
		gone, ok := pickLines(string(text), family, which)
		return gone, ok
	}
	return nil, false
}

func pickLines(text string, family byte, which func(Flow) bool) (gone [][]byte, ok bool) {
	name := "ipv4"
	if family == unix.AF_INET6 {
		name = "ipv6"
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+" ") {
			continue
		}
		l, ok := parseLine(line)
		if !ok {
			return nil, false
		}
		if l.hasPorts && which(Flow{Protocol: l.proto, To: l.orig[1], By: l.reply[0]}) {
			gone = append(gone, l.remove(family))
		}
	}
	return gone, true
}

// procFlow is a line of nf_conntrack; orig and reply are source and destination.
type procFlow struct {
	proto       service.Protocol
	orig, reply [2]netip.AddrPort
	zone        uint16
	hasPorts    bool
}

// parseLine reads "ipv6 10 udp 17 29 src=… dst=… sport=1 dport=2 [UNREPLIED] src=… dst=… sport=2 dport=1 mark=0 zone=0 use=2".
// Of a flow whose directions are in different zones it knows nothing.
func parseLine(line string) (l procFlow, ok bool) {
	words := strings.Fields(line)
	if len(words) < 5 {
		return l, false
	}
	proto, err := strconv.ParseUint(words[3], 10, 8)
	if err != nil {
		return l, false
	}
	l.proto = service.Protocol(proto)
	var addrs [4]netip.Addr
	var ports [4]uint16
	na, np := 0, 0
	for _, w := range words[4:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "src", "dst":
			if na == len(addrs) {
				return l, false
			}
			if addrs[na], err = netip.ParseAddr(value); err != nil {
				return l, false
			}
			na++
		case "sport", "dport", "zone":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || np == len(ports) && key != "zone" {
				return l, false
			}
			if key == "zone" {
				l.zone = uint16(n)
				continue
			}
			ports[np] = uint16(n)
			np++
		case "zone-orig", "zone-reply":
			return l, false
		}
	}
	l.hasPorts = np == len(ports)
	for i := range 2 {
		l.orig[i], l.reply[i] = netip.AddrPortFrom(addrs[i], ports[i]), netip.AddrPortFrom(addrs[i+2], ports[i+2])
	}
	return l, na == len(addrs)
}

// remove names the flow by its whole tuple.
func (l procFlow) remove(family byte) []byte {
	v6 := uint16(0)
	if family == unix.AF_INET6 {
		v6 = 2
	}
	from, to := l.orig[0], l.orig[1]
	ip := appendAttr(appendAttr(nil, ipSrc+v6, from.Addr().AsSlice()), ipDst+v6, to.Addr().AsSlice())
	proto := appendAttr(nil, protoNum, []byte{byte(l.proto)})
	proto = appendAttr(proto, protoSrc, binary.BigEndian.AppendUint16(nil, from.Port()))
	proto = appendAttr(proto, protoDst, binary.BigEndian.AppendUint16(nil, to.Port()))
	tuple := appendAttr(appendAttr(nil, tupleIP|nested, ip), tupleProto|nested, proto)
	m := appendAttr(header(msgDelete, unix.NLM_F_ACK, family), ctaTupleOrig|nested, tuple)
	if l.zone != 0 {
		m = appendAttr(m, ctaZone, binary.BigEndian.AppendUint16(nil, l.zone))
	}
	return m
}

// countFlows is how many flows the namespace has, of all families and protocols.
func countFlows() (int, bool) {
	text, ok := readFile("/proc/sys/net/netfilter/nf_conntrack_count")
	n, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	return n, ok && err == nil
}

// readFile does not go through os, which would start the runtime's poller in a plugin that lives two milliseconds.
func readFile(path string) (out []byte, ok bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var buf [4096]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err != nil || n == 0 {
			return out, err == nil
		}
		out = append(out, buf[:n]...)
	}
}
