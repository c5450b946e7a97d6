// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

const otherVersion = `nft -f - <<E
table ip l3edge_hostports {
	map anyip { type inet_service : ipv4_addr; elements = { 81 : 10.10.10.3 } }
}
E`

func mapping(port uint16, pod string) Mapping {
	return Mapping{HostIP: netip.IPv4Unspecified(), Protocol: service.TCP, HostPort: port, To: netip.MustParseAddrPort(pod)}
}

func openIn(t *testing.T, ns *netns.Handle) (h *HostPorts) {
	t.Helper()
	nstest.Do(t, ns, func() (err error) { h, err = OpenHostPorts(); return err })
	t.Cleanup(func() { _ = h.Close(false, nil) })
	return h
}

// TestNothingThatComesMeanwhileIsLost: another process makes the table anew and adds a port between our look at the old
// table and our transaction that would replace it.
func TestNothingThatComesMeanwhileIsLost(t *testing.T) {
	ns := nstest.New(t)
	nstest.Sh(t, ns, otherVersion)
	late, fast := openIn(t, ns), openIn(t, ns)
	looked := 0
	late.Saved = func() []Held {
		if looked++; looked == 1 {
			if err := fast.Add("net/fast/eth0", []Mapping{mapping(80, "10.10.10.2:80")}); err != nil {
				t.Fatal(err)
			}
		}
		return nil
	}
	if err := late.Ensure(true, false); err != nil {
		t.Fatal(err)
	}
	if looked != 1 {
		t.Errorf("it asked %d times what to restore, want once: the second time the table stands", looked)
	}
	if held, ok, err := late.Holder(mapping(80, "10.10.10.2:80")); !ok || err != nil || held.Holder != "net/fast/eth0" {
		t.Errorf("the port that was added meanwhile: %v, %t, %v", held, ok, err)
	}
}

// TestRestoredPortsGoToTheFirst: of two that claim a port, one is not what was in the table.
func TestRestoredPortsGoToTheFirst(t *testing.T) {
	ns := nstest.New(t)
	nstest.Sh(t, ns, otherVersion)
	h := openIn(t, ns)
	h.Saved = func() []Held {
		return []Held{{mapping(80, "10.10.10.2:80"), "net/first/eth0"}, {mapping(80, "10.10.10.3:80"), "net/second/eth0"}, {mapping(81, "10.10.10.3:80"), "net/second/eth0"}}
	}
	var taken *Conflict
	if err := h.Add("net/third/eth0", []Mapping{mapping(80, "10.10.10.4:80")}); !errors.As(err, &taken) || taken.By.Holder != "net/first/eth0" {
		t.Errorf("an ADD that mends the table and wants a port of it: %v", err)
	}
	all, err := h.List()
	if err != nil || len(all) != 2 {
		t.Errorf("in the table: %v, %v; want two ports", all, err)
	}
}

// TestRemoveMeetsAnotherVersion: a DEL after an upgrade takes its own away and keeps the others'.
func TestRemoveMeetsAnotherVersion(t *testing.T) {
	ns := nstest.New(t)
	nstest.Sh(t, ns, otherVersion)
	h := openIn(t, ns)
	mine, theirs := Held{mapping(80, "10.10.10.2:80"), "net/mine/eth0"}, Held{mapping(81, "10.10.10.3:80"), "net/theirs/eth0"}
	h.Saved = func() []Held { return []Held{mine, theirs} }
	for range 2 {
		if err := h.Remove("net/mine/eth0", []Mapping{mine.Mapping}); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := h.List(); err != nil || len(all) != 1 || all[0] != theirs {
		t.Errorf("left: %v, %v; want %v", all, err, theirs)
	}
}
