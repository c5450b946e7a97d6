// SPDX-License-Identifier: Apache-2.0

package place

import "testing"

func TestParsePacket(t *testing.T) {
	head := []byte{0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 10, 10, 2, 10, 100, 87, 105}
	tcp := []byte{0x96, 0x9d, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c', 'd'}
	p, ok := parsePacket(append(head, tcp...))
	if want := "00:00:00.000000 IP 10.10.10.2.38557 > 10.100.87.105.80: tcp 4"; !ok || p.String() != want {
		t.Errorf("got %s %v, want %s", p, ok, want)
	}
	udp := append([]byte{}, head...)
	udp[9] = 17
	fragment := append([]byte{}, head...)
	fragment[7] = 1
	for what, b := range map[string][]byte{"nothing": nil, "half": append(head, tcp[:7]...), "udp": append(udp, tcp...), "a later fragment": append(fragment, tcp...)} {
		if p, ok := parsePacket(b); ok {
			t.Errorf("%s was read as %s", what, p)
		}
	}
}
