// SPDX-License-Identifier: Apache-2.0

package bgp

import "testing"

// TestALateWordAboutAPeerThatWasReplaced comes when the same peer has been configured anew.
func TestALateWordAboutAPeerThatWasReplaced(t *testing.T) {
	var s sessions
	s.init([]Peer{{Name: "127.0.0.1"}})
	s.bind("127.0.0.1", addr("127.0.0.1"))
	s.dismiss("127.0.0.1")
	s.update(addr("127.0.0.1"), func(e *entry) { e.State = Idle }) // gobgp says that the old one is gone
	s.expect("127.0.0.1")
	s.forget(addr("127.0.0.1"))
	s.bind("127.0.0.1", addr("127.0.0.1"))
	if e := s.byAddr[addr("127.0.0.1")]; e == nil || e.Dynamic {
		t.Errorf("the configured peer is %+v", e)
	}
	s.dismiss("127.0.0.1")
	s.expect("127.0.0.1")
	s.update(addr("127.0.0.1"), func(e *entry) { e.State = Idle })
	s.forget(addr("127.0.0.1"))
	if s.byName["127.0.0.1"] == nil {
		t.Error("a late word took the configured peer along")
	}
}
