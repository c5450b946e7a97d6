// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestTheFirstOfTwoSwitchesIsAway: whichever uplink is up makes the node, and the other does not make it another.
func TestTheFirstOfTwoSwitchesIsAway(t *testing.T) {
	n, a, b := newHost(t, "kubminion1"), newHost(t, "tor-a"), newHost(t, "tor-b")
	nstest.Veth(t, n.Handle, "ens18", "10.20.30.62/24", a.Handle, "p1", "10.20.30.1/24")
	nstest.Veth(t, n.Handle, "ens19", "10.20.31.62/24", b.Handle, "p1", "10.20.31.1/24")
	n.sh(t, "ip link set ens18 down")
	begin := func() { n.routed(t, "--peer=10.20.30.1", "--peer=10.20.31.1", "--pod-subnet=10.10.10.0/24") }
	id := func() string { return n.status(t).RouterID.String() }
	begin()
	within(t, promised, "who it is, by the second", func() bool { return id() == "10.20.31.62" })

	n.signal(t, syscall.SIGUSR2)
	n.sh(t, "ip link set ens18 up")
	begin()
	within(t, promised, "started again", func() bool { return n.status(t).ASN != 0 })
	if id() != "10.20.31.62" {
		t.Errorf("a restart made it %s: its ASN changes with the uplink that is up", id())
	}

	n.signal(t, syscall.SIGKILL)
	n.sh(t, "ip addr del 10.20.31.62/24 dev ens19")
	begin()
	within(t, promised, "the address has gone: another node", func() bool { return id() == "10.20.30.62" })

	n.signal(t, syscall.SIGTERM)
	if _, err := os.Stat(n.dir + "/identity.json"); err == nil {
		t.Error("a stop leaves who the node was")
	}
}

func TestNoWayToAnyPeer(t *testing.T) {
	n := newHost(t, "kubminion1")
	other := newHost(t, "other")
	nstest.Veth(t, n.Handle, "ens18", "10.20.30.62/24", other.Handle, "p1", "10.20.30.1/24")
	nstest.Do(t, n.Handle, func() error {
		r := raw{Peers: []rawPeer{{Name: "192.0.2.1"}, {Name: "192.0.2.2"}}, PodSubnets: []string{"10.10.10.0/24"}, Socket: n.dir + "/routed.sock"}
		cfg, err := parse(r, "kubminion1", noCNI)
		if err != nil {
			return err
		}
		if _, err := findIdentity(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "192.0.2.1") || !strings.Contains(err.Error(), "192.0.2.2") {
			t.Errorf("a node waits, and names every peer; got %v", err)
		}
		r.ListenRanges = []string{"10.20.30.0/24"}
		if cfg, err = parse(r, "kubminion1", noCNI); err != nil {
			return err
		}
		if id, err := findIdentity(context.Background(), cfg); err != nil || id.routerID.String() != "10.20.30.62" {
			t.Errorf("a switch is there for those who connect to it; got %v, %v", id.routerID, err)
		}
		return nil
	})
}
