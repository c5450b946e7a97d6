// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/hex"
	"strings"
	"testing"
)

const (
	ether = "0a580a0a0a01" + "0a580a0a0a02" + "0800"
	ip4   = "4500" + "%len" + "00004000" + "40" + "06" + "0000" + "0a0a0a02" + "0a645769"
)

func frame(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	tcp := func(flags, payload string) string {
		return "969d0050" + "00000000" + "00000000" + "50" + flags + "ffff00000000" + payload
	}
	for _, row := range []struct {
		what, frame, want string
		first             bool
	}{
		{"a SYN", ether + strings.Replace(ip4, "%len", "0028", 1) + tcp("02", ""), "IP 10.10.10.2.38557 > 10.100.87.105.80: tcp 0", true},
		{"a SYN-ACK", ether + strings.Replace(ip4, "%len", "0028", 1) + tcp("12", ""), "IP 10.10.10.2.38557 > 10.100.87.105.80: tcp 0", false},
		{"data", ether + strings.Replace(ip4, "%len", "002c", 1) + tcp("18", "01020304"), "IP 10.10.10.2.38557 > 10.100.87.105.80: tcp 4", false},
		{"data in a VLAN", "0a580a0a0a010a580a0a0a02" + "8100000a0800" + strings.Replace(ip4, "%len", "002c", 1) + tcp("18", "01020304"), "IP 10.10.10.2.38557 > 10.100.87.105.80: tcp 4", false},
		{"a ping", ether + "4500001c00004000400100000a0a0a020a0a0a01" + "0800000000000000", "IP 10.10.10.2 > 10.10.10.1: icmp 8", false},
		{"UDP over IPv6", "0a580a0a0a010a580a0a0a0286dd" + "60000000" + "000c" + "11" + "40" + "fd000010000000000000000000000002" + "fd000010000000000000000000000001" + "c0000035000c0000" + "01020304",
			"IP6 fd00:10::2.49152 > fd00:10::1.53: udp 4", false},
	} {
		t.Run(row.what, func(t *testing.T) {
			p, ok := Parse(frame(t, row.frame))
			if !ok || p.String() != row.want || p.First != row.first {
				t.Errorf("got %s %t %t", p, p.First, ok)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := Parse(b); ok && (p.Length < 0 || p.String() == "") {
			t.Errorf("%x: %+v", b, p)
		}
	})
}
