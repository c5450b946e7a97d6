// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func v4() Addr {
	return Addr{netip.MustParseAddr("10.10.10.2"), netip.MustParsePrefix("10.10.10.0/24"), netip.MustParseAddr("10.10.10.1")}
}

func v6() Addr {
	return Addr{netip.MustParseAddr("fd00:10::2"), netip.MustParsePrefix("fd00:10::/64"), netip.MustParseAddr("fd00:10::1")}
}

func TestDecide(t *testing.T) {
	base := Spec{Network: "l3edge", ContainerID: "4ab0", IfName: "eth0", Bridge: "cni0", MTU: 1500, Gateway: true, DefaultRoute: true, Hairpin: true}
	mac := MAC{2, 0, 0, 0, 0, 7}
	rows := map[string]func(*Spec){
		"plain":      func(s *Spec) { s.Addrs = []Addr{v4()} },
		"dual-stack": func(s *Spec) { s.Addrs = []Addr{v4(), v6()} },
		"ipv6-only":  func(s *Spec) { s.Addrs = []Addr{v6()} },
		"routed":     func(s *Spec) { s.Addrs, s.Routed = []Addr{v4(), v6()}, true },
		"own-routes": func(s *Spec) {
			s.Addrs = []Addr{v4()}
			s.Routes = []Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.10.10.9")}, {Dst: netip.MustParsePrefix("10.0.0.0/8"), MTU: 1400}}
		},
		"asked-mac":  func(s *Spec) { s.Addrs, s.MAC = []Addr{v4()}, &mac },
		"vlan":       func(s *Spec) { s.Addrs, s.VLAN = []Addr{v4(), v6()}, VLANSpec{Access: 5} },
		"vlan-trunk": func(s *Spec) { s.Addrs, s.VLAN = []Addr{v4()}, VLANSpec{Trunk: []int{30, 7, 6, 7}, KeepDefault: true} },
		"vlan-both":  func(s *Spec) { s.Gateway, s.VLAN = false, VLANSpec{Access: 5, Trunk: []int{4, 5, 6}} },
		"no-address": func(s *Spec) { s.Gateway, s.DefaultRoute, s.Down = false, false, true },
	}
	for name, change := range rows {
		t.Run(name, func(t *testing.T) {
			s := base
			change(&s)
			file := filepath.Join("testdata", name+".txt")
			got := Decide(s).String()
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPortNames(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{"a", "b", strings.Repeat("f", 64), strings.Repeat("f", 63) + "e"} {
		for _, ifName := range []string{"eth0", "net1"} {
			name := PortName(id, ifName)
			if len(name) != 15 || seen[name] || name != PortName(id, ifName) {
				t.Errorf("%s %s: %s", id, ifName, name)
			}
			seen[name] = true
		}
	}
}

func TestParseMAC(t *testing.T) {
	for text, want := range map[string]string{
		"02:00:00:00:00:07": "02:00:00:00:00:07", "0A-58-0A-0A-0A-02": "0a:58:0a:0a:0a:02",
		"01:00:5e:00:00:01": "", "00:00:00:00:00:00": "", "02:00:00:00:00": "", "020000000007": "", "zz:00:00:00:00:07": "",
	} {
		m, err := ParseMAC(text)
		if (err == nil) != (want != "") || err == nil && m.String() != want {
			t.Errorf("%s: %s, %v, want %q", text, m, err, want)
		}
	}
}

func set(a *Attachment, name, value string) {
	for i := range a.Settings {
		if a.Settings[i].Name == name {
			a.Settings[i].Value = value
		}
	}
}

func TestVerifyNamesTheFirstDifference(t *testing.T) {
	s := Spec{Network: "n", ContainerID: "x", IfName: "eth0", Bridge: "cni0", MTU: 1500, Gateway: true, DefaultRoute: true, Hairpin: true, Addrs: []Addr{v4()}}
	rows := []struct {
		name   string
		change func(*Attachment)
		want   string
	}{
		{"nothing", func(*Attachment) {}, ""},
		{"others' addresses, routes and settings", func(a *Attachment) {
			a.Pod.Addrs = append(a.Pod.Addrs, netip.MustParsePrefix("fe80::1/64"))
			a.Pod.Routes = append(a.Pod.Routes, Route{Dst: netip.MustParsePrefix("10.0.0.0/8")})
			a.Settings = append(a.Settings, Setting{Name: "net/x", Value: "1"})
		}, ""},
		{"settings that this kernel may lack", func(a *Attachment) {
			a.Settings = slices.DeleteFunc(a.Settings, func(s Setting) bool { return s.Optional != "" })
		}, ""},
		{"a setting that it must have", func(a *Attachment) { a.Settings = nil }, "node: this kernel has no setting net/ipv4/ip_forward"},
		{"a setting with another value", func(a *Attachment) { a.Settings[0].Value = "0" }, "node: net/ipv4/ip_forward is 0, want 1"},
		{"no bridge", func(a *Attachment) { a.Bridge = Bridge{} }, "bridge cni0: is gone"},
		{"no port", func(a *Attachment) { a.Port = Port{} }, "is gone"},
		{"no pod interface", func(a *Attachment) { a.Pod = Pod{} }, "pod interface eth0: is gone"},
		{"a port that is down", func(a *Attachment) { a.Port.Down = true }, "down is true, want false"},
		{"a port that the bridge does not forward by", func(a *Attachment) { a.Port.Blocked = true }, "the bridge forwards nothing by it"},
		{"a bridge that does not forward", func(a *Attachment) { set(a, "net/ipv4/conf/cni0/forwarding", "0") }, "node: net/ipv4/conf/cni0/forwarding is 0, want 1"},
		{"a bridge that takes routes from pods", func(a *Attachment) { set(a, "net/ipv6/conf/cni0/accept_ra", "2") }, "node: net/ipv6/conf/cni0/accept_ra is 2, want 0"},
		{"an isolated port", func(a *Attachment) { a.Port.Isolated = true }, "isolated is true, want false"},
		{"two differences", func(a *Attachment) { a.Pod.MTU, a.Port.MTU = 1, 2 }, "MTU is 2, want 1500"},
		{"a route by another gateway", func(a *Attachment) { a.Pod.Routes[0].Via = v4().Addr }, "route 0.0.0.0/0 via 10.10.10.1 is missing"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			have := Decide(s)
			row.change(&have)
			err := Verify(Decide(s), have)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

func TestVerifyKnowsVLANs(t *testing.T) {
	s := Spec{Network: "l3edge", ContainerID: "4ab0", IfName: "eth0", Bridge: "cni0", MTU: 1500, Gateway: true, Addrs: []Addr{v4()}, VLAN: VLANSpec{Access: 5, Trunk: []int{6}}}
	rows := []struct {
		name   string
		keep   bool
		change func(*Attachment)
		want   string
	}{
		{"nothing", false, func(*Attachment) {}, ""},
		{"a bridge that does not tell VLANs apart", false, func(a *Attachment) { a.Bridge.Filtering = false }, "bridge cni0: does not filter VLANs"},
		{"no gateway interface", false, func(a *Attachment) { a.Bridge.Leg = nil }, "the gateway's interface cni0.5 is gone"},
		{"a gateway interface beside the bridge", false, func(a *Attachment) { a.Bridge.Leg.Port.Bridge = "" }, `is a port of ""`},
		{"a gateway in another VLAN", false, func(a *Attachment) { a.Bridge.Leg.Port.VLANs[0].ID = 9 }, "is not in VLAN 5 pvid untagged"},
		{"a gateway interface without the address", false, func(a *Attachment) { a.Bridge.Addrs = nil }, "gateway cni0.5: address 10.10.10.1/24 is missing"},
		{"a pod outside its VLAN", false, func(a *Attachment) { a.Port.VLANs = a.Port.VLANs[1:] }, "is not in VLAN 5 pvid untagged"},
		{"a pod that sends untagged what should be tagged", false, func(a *Attachment) { a.Port.VLANs[1].Untagged = true }, "is not in VLAN 6"},
		{"a pod in another VLAN too", false, func(a *Attachment) { a.Port.VLANs = append(a.Port.VLANs, VLAN{ID: 1, Untagged: true}) }, "is in VLAN 1 untagged, where it should not be"},
		{"a pod in the default VLAN too, as asked", true, func(a *Attachment) { a.Port.VLANs = append(a.Port.VLANs, VLAN{ID: 1, Untagged: true}) }, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s.VLAN.KeepDefault = row.keep
			have := Decide(s)
			row.change(&have)
			err := Verify(Decide(s), have)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}
