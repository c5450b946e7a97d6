// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// defaultVLAN is the one that a filtering bridge puts a new port in, if nobody has changed that (default_pvid).
const defaultVLAN = 1

// VLANSpec says which VLANs of the bridge (IEEE 802.1Q) a pod is in. The zero value: the bridge does not tell them apart.
type VLANSpec struct {
	Access      int   // what the pod sends and gets untagged; 0: the default VLAN, or none
	Trunk       []int // what it sends and gets tagged, in any order
	KeepDefault bool  // besides, it gets what is in the bridge's default VLAN
}

// VLAN is one VLAN of a port. PVID: frames that come in untagged are in it; Untagged: its frames go out so.
type VLAN struct {
	ID             int
	PVID, Untagged bool
}

// String is the VLAN in the words of bridge vlan.
func (v VLAN) String() string {
	s := strconv.Itoa(v.ID)
	if v.PVID {
		s += " pvid"
	}
	if v.Untagged {
		s += " untagged"
	}
	return s
}

// Leg is the node's own end of a link into one VLAN of its bridge, where that VLAN's gateway addresses are.
type Leg struct {
	Name string
	MAC  MAC
	Port Port
}

// LegName is the interface with the gateway addresses of pods that are in a VLAN.
func LegName(bridge string, vlan int) string { return bridge + "." + strconv.Itoa(vlan) }

// Filtering says that the bridge has to keep VLANs apart.
func (s VLANSpec) Filtering() bool { return s.Access != 0 || len(s.Trunk) > 0 }

// of are a port's. A pod with a trunk and no VLAN of its own is untagged in the default one, as with the reference plugin.
func (s VLANSpec) of() (out []VLAN) {
	if !s.Filtering() {
		return nil
	}
	native := s.Access
	if native == 0 {
		native = defaultVLAN
	}
	out = append(out, VLAN{ID: native, PVID: true, Untagged: true})
	for _, id := range s.Trunk {
		if id != native {
			out = append(out, VLAN{ID: id})
		}
	}
	slices.SortFunc(out, func(a, b VLAN) int { return cmp.Compare(a.ID, b.ID) })
	return slices.Compact(out)
}

// vlans puts the port in its VLANs, and the gateway in the pod's.
func (a *Attachment) vlans(s Spec) {
	a.Bridge.Filtering = s.VLAN.Filtering()
	a.Port.VLANs, a.Port.KeepVLANs = s.VLAN.of(), s.VLAN.KeepDefault
	if s.VLAN.Access == 0 || len(a.Bridge.Addrs) == 0 {
		return
	}
	name := LegName(s.Bridge, s.VLAN.Access)
	port := PortName(s.Bridge, strconv.Itoa(s.VLAN.Access))
	a.Bridge.Leg = &Leg{Name: name, MAC: a.Bridge.MAC, Port: Port{
		Name: port, Bridge: s.Bridge, Alias: "l3edge gateway of " + name, MAC: random(port), MTU: s.MTU,
		VLANs: VLANSpec{Access: s.VLAN.Access}.of(), KeepVLANs: s.VLAN.KeepDefault,
	}}
	a.Bridge.MAC = random(s.Network + s.Bridge)
}

// Gateway is the interface that has Addrs.
func (b Bridge) Gateway() string {
	if b.Leg != nil {
		return b.Leg.Name
	}
	return b.Name
}

func (b Bridge) vlanString() (s string) {
	if b.Filtering {
		s = fmt.Sprintf("bridge %s filters vlans\n", b.Name)
	}
	if b.Leg != nil {
		s += fmt.Sprintf("node  %s mac %s has the addresses; port %s vlans %v\n", b.Leg.Name, b.Leg.MAC, b.Leg.Port.Name, b.Leg.Port.VLANs)
	}
	return s
}

// ChangeVLANs says which VLANs to add to a port that has these, and which to take away.
func (p Port) ChangeVLANs(have []VLAN) (add, drop []VLAN) {
	for _, w := range p.VLANs {
		if !slices.Contains(have, w) {
			add = append(add, w)
		}
	}
	for _, h := range have {
		if !p.KeepVLANs && !slices.ContainsFunc(p.VLANs, func(w VLAN) bool { return w.ID == h.ID }) {
			drop = append(drop, h)
		}
	}
	return add, drop
}

// verifyVLANs names the first VLAN that a port lacks, or has and should not have.
func verifyVLANs(want, have Port) error {
	if len(want.VLANs) == 0 {
		return nil
	}
	add, drop := want.ChangeVLANs(have.VLANs)
	for _, v := range add {
		return fmt.Errorf("port %s: is not in VLAN %s", want.Name, v)
	}
	for _, v := range drop {
		return fmt.Errorf("port %s: is in VLAN %s, where it should not be", want.Name, v)
	}
	return nil
}

func verifyLeg(want, have Bridge) error {
	switch {
	case want.Filtering && !have.Filtering:
		return fmt.Errorf("bridge %s: does not filter VLANs", want.Name)
	case want.Leg == nil:
		return nil
	case have.Leg == nil:
		return fmt.Errorf("bridge %s: the gateway's interface %s is gone", want.Name, want.Leg.Name)
	case have.Leg.Port.Bridge != want.Name:
		return fmt.Errorf("bridge %s: the gateway's port %s is a port of %q", want.Name, want.Leg.Port.Name, have.Leg.Port.Bridge)
	}
	return verifyVLANs(want.Leg.Port, have.Leg.Port)
}
