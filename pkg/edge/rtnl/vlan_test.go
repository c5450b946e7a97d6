// SPDX-License-Identifier: Apache-2.0

package rtnl

import (
	"encoding/hex"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// TestVLANMessages compares with what iproute2's bridge and ip send for the same (little-endian, without the sequence
// number; they leave the flag NLA_F_NESTED, 0x8000, out).
func TestVLANMessages(t *testing.T) {
	one := []attach.VLAN{{ID: 5, PVID: true, Untagged: true}}
	rows := []struct {
		name string
		m    *message
		want []string
	}{
		{"bridge vlan add vid 5 pvid untagged", vlanMessage(unix.RTM_SETLINK, 3, one), []string{
			"2c000000 1300 0500 00000000 00000000", "07 00 0000 03000000 00000000 00000000", "0c00 1a80", "0800 0200 0600 0500"}},
		{"bridge vlan del vid 1", vlanMessage(unix.RTM_DELLINK, 3, []attach.VLAN{{ID: 1}}), []string{
			"2c000000 1100 0500 00000000 00000000", "07 00 0000 03000000 00000000 00000000", "0c00 1a80", "0800 0200 0000 0100"}},
		{"a trunk of 10-12 and 20 beside VLAN 5", vlanMessage(unix.RTM_SETLINK, 3, append(one, attach.VLAN{ID: 10}, attach.VLAN{ID: 11}, attach.VLAN{ID: 12}, attach.VLAN{ID: 20})), []string{
			"44000000 1300 0500 00000000 00000000", "07 00 0000 03000000 00000000 00000000", "2400 1a80",
			"0800 0200 0600 0500", "0800 0200 0800 0a00", "0800 0200 1000 0c00", "0800 0200 0000 1400"}},
		{"ip link set type bridge vlan_filtering 1", filteringMessage(3), []string{
			"3c000000 1000 0500 00000000 00000000", "00 00 0000 03000000 00000000 00000000", "1c00 1280", "0b00 0100 62726964676500 00", "0c00 0280", "0500 0700 01 000000"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got := hex.EncodeToString(row.m.finish(unix.NLM_F_ACK, 0))
			if diff := cmp.Diff(strings.ReplaceAll(strings.Join(row.want, ""), " ", ""), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestVLANsAreReadAsTheyAreWritten(t *testing.T) {
	want := []attach.VLAN{{ID: 1, Untagged: true}, {ID: 5, PVID: true, Untagged: true}, {ID: 10}, {ID: 11}, {ID: 12}, {ID: 4094}}
	b := vlanMessage(unix.RTM_SETLINK, 3, want).finish(0, 0)[unix.SizeofNlMsghdr+unix.SizeofIfInfomsg:]
	if diff := cmp.Diff(want, parseVLANs(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for cut := range b {
		parseVLANs(b[:cut]) // no panic
	}
}

// TestVLANsInTheKernel asks the kernel. Where its bridges know VLANs the port must be in those that were asked for; where
// they do not, each way must say so.
func TestVLANsInTheKernel(t *testing.T) {
	h := nstest.New(t)
	nstest.Sh(t, h, "ip link add br.p type bridge; ip link add v.p type veth peer name w.p; ip link set v.p master br.p")
	able := true
	nstest.Do(t, h, func() error {
		able = exec.Command("ip", "link", "set", "br.p", "type", "bridge", "vlan_filtering", "1").Run() == nil
		return nil
	})
	nstest.Do(t, h, func() error {
		c, err := Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		port, err := net.InterfaceByName("v.p")
		if err != nil {
			return err
		}
		br, err := c.Link("br.p")
		if err != nil {
			return err
		}
		if br.KnowsVLANs != able {
			t.Errorf("the bridge says that it knows VLANs: %t", br.KnowsVLANs)
		}
		want := attach.Port{Name: "v.p", VLANs: []attach.VLAN{{ID: 5, PVID: true, Untagged: true}, {ID: 10}, {ID: 11}, {ID: 12}}}
		_, madeErr := c.MakeBridge(attach.Bridge{Name: "br.q", MTU: 1500, MAC: attach.MAC{2, 0, 0, 0, 0, 1}, Filtering: true})
		err = errors.Join(madeErr, c.SetFiltering(br.Index), c.SetVLANs(port.Index, want))
		if !able {
			for what, err := range map[string]error{"a new bridge": madeErr, "an old one": c.SetFiltering(br.Index), "a port": c.SetVLANs(port.Index, want)} {
				if !errors.Is(err, ErrNoVLANs) {
					t.Errorf("%s: %v, want %v", what, err, ErrNoVLANs)
				}
			}
			if _, err := c.Link("br.q"); !errors.Is(err, ErrNoLink) {
				t.Errorf("the bridge that cannot be as asked for: %v", err)
			}
			return nil
		}
		got, lerr := c.VLANs(port.Index)
		if diff := cmp.Diff(want.VLANs, got); diff != "" {
			t.Errorf("VLANs (-want +got):\n%s", diff)
		}
		for _, name := range []string{"br.p", "br.q"} {
			if l, err := c.Link(name); err != nil || !l.Filtering {
				t.Errorf("%s: %+v, %v", name, l, err)
			}
		}
		return errors.Join(err, lerr)
	})
}
