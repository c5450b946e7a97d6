// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"testing"
)

// TestALateWordAboutAPeerThatWasReplaced comes when the same peer has been configured anew.
func TestALateWordAboutAPeerThatWasReplaced(t *testing.T) {
	addr := netip.MustParseAddr
	s := New("127.0.0.1")
	s.Bind("127.0.0.1", addr("127.0.0.1"))
	s.Dismiss("127.0.0.1")
	s.Update(addr("127.0.0.1"), func(e *Entry) { e.State = Idle }) // gobgp says that the old one is gone
	s.Expect("127.0.0.1")
	s.Forget(addr("127.0.0.1"))
	s.Bind("127.0.0.1", addr("127.0.0.1"))
	if e := s.byAddr[addr("127.0.0.1")]; e == nil || e.Dynamic {
		t.Errorf("the configured peer is %+v", e)
	}
	s.Dismiss("127.0.0.1")
	s.Expect("127.0.0.1")
	s.Update(addr("127.0.0.1"), func(e *Entry) { e.State = Idle })
	s.Forget(addr("127.0.0.1"))
	if s.byName["127.0.0.1"] == nil {
		t.Error("a late word took the configured peer along")
	}
}
