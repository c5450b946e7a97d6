// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// The tests speak SCTP's first two packets by hand, so that they need no kernel that has its sockets (RFC 9260, 3.3.2-3).
const (
	chunkInit, chunkInitAck = 1, 2
	tag                     = 0x5ca1ab1e // the client's
)

// sctpPacket is an INIT, or an INIT ACK with a text in a parameter of a type that receivers skip.
func sctpPacket(from, to uint16, vtag uint32, chunk byte, text string) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint32(b, vtag)
	b = append(b, 0, 0, 0, 0, chunk, 0)
	param := []byte{}
	if text != "" {
		param = append(binary.BigEndian.AppendUint16([]byte{0xc0, 0x01}, uint16(4+len(text))), text...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(param)))
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1) // window, streams, first number
	b = append(b, param...)
	b = append(b, make([]byte, -len(b)&3)...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func rawSCTP(t *testing.T, ns *netns.Handle, v4 bool) (c net.PacketConn) {
	t.Helper()
	network, at := "ip6:132", "::"
	if v4 {
		network, at = "ip4:132", "0.0.0.0"
	}
	nstest.Do(t, ns, func() (err error) { c, err = net.ListenPacket(network, at); return err })
	t.Cleanup(func() { c.Close() })
	return c
}

// serveSCTP answers each INIT to port 80 of the pod with its name and the client's address.
func (w *world) serveSCTP(name string, v4 bool) {
	c := rawSCTP(w.t, w.pods[name], v4)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if b := buf[:n]; n >= 32 && b[12] == chunkInit && binary.BigEndian.Uint16(b[2:]) == 80 {
				_, _ = c.WriteTo(sctpPacket(80, binary.BigEndian.Uint16(b), tag, chunkInitAck, name+" "+from.String()), from)
			}
		}
	}()
}

// askSCTP returns what the server says, whose answer must come from where it was asked.
func (w *world) askSCTP(from *netns.Handle, at netip.AddrPort) string {
	w.t.Helper()
	c := rawSCTP(w.t, from, at.Addr().Is4())
	const port = 40001
	to := &net.IPAddr{IP: at.Addr().AsSlice()}
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.WriteTo(sctpPacket(port, at.Port(), 0, chunkInit, ""), to); err != nil {
		return err.Error()
	}
	buf := make([]byte, 1500)
	for {
		n, by, err := c.ReadFrom(buf)
		if err != nil {
			return err.Error()
		}
		b := buf[:n]
		if n < 36 || b[12] != chunkInitAck || binary.BigEndian.Uint16(b[2:]) != port {
			continue
		}
		if sport := binary.BigEndian.Uint16(b); sport != at.Port() || by.String() != at.Addr().String() {
			return fmt.Sprintf("an answer from %s port %d", by, sport)
		}
		return string(bytes.TrimRight(b[36:], "\x00"))
	}
}

func TestHostPortsOverSCTP(t *testing.T) {
	w := newWorld(t)
	dualStack(w)
	for name := range w.pods {
		w.serveSCTP(name, true)
		w.serveSCTP(name, false)
	}
	both := func(pod string) string { return with6(pod, addrs[pod]+"/24", addrs6[pod]+"/64") }
	const sctp = `{"hostPort":132,"containerPort":80,"protocol":"SCTP"}`
	w.must("ADD", "web", ports(sctp)+both("web"))
	w.must("ADD", "other", ports(`{"hostPort":132,"containerPort":80,"protocol":"sctp","hostIP":"10.10.10.1"}`)+both("other"))
	for _, tt := range []struct {
		name     string
		from     *netns.Handle
		at, want string
	}{
		{"from outside, which sees the true client", w.out, "10.20.30.62:132", "web 10.20.30.1"},
		{"from outside by IPv6", w.out, "[fd00:20::62]:132", "web fd00:20::1"},
		{"on the one address that another pod has asked for", w.out, "10.10.10.1:132", "other 10.20.30.1"},
		{"from another pod of the node", w.pods["other"], "10.20.30.62:132", "web 10.10.10.3"},
		{"from the node itself", w.node, "10.20.30.62:132", "web 10.20.30.62"},
		{"from the node by 127.0.0.1", w.node, "127.0.0.1:132", "web 10.10.10.1"},
		{"from the pod itself", w.pods["web"], "10.20.30.62:132", "web 10.10.10.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := w.askSCTP(tt.from, netip.MustParseAddrPort(tt.at)); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.at, got, tt.want)
			}
		})
	}
	w.must("CHECK", "web", ports(sctp)+both("web"))
	w.must("DEL", "web", "")
	w.must("ADD", "other/2", ports(sctp)+both("other"))
	if got := w.askSCTP(w.out, netip.MustParseAddrPort("10.20.30.62:132")); got != "other 10.20.30.1" {
		t.Errorf("the same client, after the port went to another pod: %q", got)
	}
}
