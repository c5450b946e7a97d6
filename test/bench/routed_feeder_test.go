// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

func TestOpenMessage(t *testing.T) {
	marker := "ffffffffffffffffffffffffffffffff"
	for asn, want := range map[uint32]string{
		64512:      marker + "002d" + "01" + "04" + "fc00" + "005a" + "0a141e01" + "10" + "0206010400010001" + "020641040000fc00",
		4200000001: marker + "002d" + "01" + "04" + "5ba0" + "005a" + "0a141e01" + "10" + "0206010400010001" + "02064104fa56ea01",
	} {
		if got := hex.EncodeToString(openMessage(asn, 90, netip.MustParseAddr("10.20.30.1"))); got != want {
			t.Errorf("ASN %d\ngot  %s\nwant %s", asn, got, want)
		}
	}
}

// TestUpdates reads back what is sent: whole messages, none too long, every prefix once, with the next hops in turn.
func TestUpdates(t *testing.T) {
	hops := []netip.Addr{netip.MustParseAddr("10.20.30.101"), netip.MustParseAddr("10.20.30.102")}
	for n, wantMessages := range map[int]int{0: 1, 1: 2, 900: 2, 901: 3, 100_000: 113} {
		seen, messages := map[netip.Prefix]int{}, 0
		for r := bytes.NewReader(updates(n, 64512, hops)); r.Len() > 0; messages++ {
			before := r.Len()
			typ, body, err := readMessage(r)
			if err != nil || typ != msgUpdate {
				t.Fatalf("%d prefixes: message %d: type %d, %v", n, messages, typ, err)
			}
			if size := before - r.Len(); size > 4096 {
				t.Errorf("%d prefixes: message %d has %d bytes", n, messages, size)
			}
			attrs := body[4 : 4+binary.BigEndian.Uint16(body[2:])]
			nlri := body[4+len(attrs):]
			if len(nlri) == 0 {
				if r.Len() > 0 || len(attrs) > 0 {
					t.Errorf("%d prefixes: message %d is an End-of-RIB before the end", n, messages)
				}
				continue
			}
			want := append([]byte{0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfc, 0, 0x40, 3, 4}, hops[messages%2].AsSlice()...)
			if !bytes.Equal(attrs, want) {
				t.Errorf("%d prefixes: message %d: attributes % x, want % x", n, messages, attrs, want)
			}
			for ; len(nlri) >= 4; nlri = nlri[4:] {
				seen[netip.PrefixFrom(netip.AddrFrom4([4]byte{nlri[1], nlri[2], nlri[3], 0}), int(nlri[0]))]++
			}
		}
		if len(seen) != n || messages != wantMessages {
			t.Errorf("%d prefixes: %d different ones in %d messages, want %d messages", n, len(seen), messages, wantMessages)
		}
		for p := range seen {
			if p.Bits() != 24 || !netip.MustParsePrefix(fed).Contains(p.Addr()) {
				t.Fatalf("%d prefixes: %s", n, p)
			}
		}
	}
}

func TestShake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct {
		name   string
		answer []byte
		ok     bool
	}{
		{"a peer that agrees", append(openMessage(65001, 9, netip.MustParseAddr("10.0.0.1")), message(msgKeepalive, nil)...), true},
		{"a peer that refuses", message(msgNotification, []byte{2, 2}), false},
		{"a peer that hangs up", nil, false},
	}
	for _, tt := range tests {
		heard := make(chan byte, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			typ, _, _ := readMessage(c)
			heard <- typ
			if _, _ = c.Write(tt.answer); tt.answer != nil {
				_, _, _ = readMessage(c) // until it has read the answer
			}
		}()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := shake(conn, 64512); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if typ := <-heard; typ != msgOpen {
			t.Errorf("%s: the first message is of type %d", tt.name, typ)
		}
		_ = conn.Close()
	}
}
