// SPDX-License-Identifier: Apache-2.0

package peer

import "testing"

func TestParseCommunity(t *testing.T) {
	for in, want := range map[string]string{"64512:1": "64512:1", "no-llgr": "65535:7", "4200000000:1:2": "4200000000:1:2"} {
		if c, err := ParseCommunity(in); err != nil || c.String() != want {
			t.Errorf("%s: %v %v", in, c, err)
		}
	}
	for _, in := range []string{"", "1", "64512:65536", "a:1", "1:2:3:4", "-1:2", "4200000000:1"} {
		if _, err := ParseCommunity(in); err == nil {
			t.Errorf("%q passes", in)
		}
	}
}
