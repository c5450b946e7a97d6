// SPDX-License-Identifier: Apache-2.0

package traffic

import "testing"

func TestUsable(t *testing.T) {
	s := Stats{Endpoints: []Endpoint{{State: Up}, {State: Down}, {State: Resting}, {State: Up}}}
	if n := s.Usable(); n != 2 {
		t.Errorf("%d usable of up, down, resting, up", n)
	}
}
