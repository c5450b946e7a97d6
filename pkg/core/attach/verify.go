// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"net/netip"
	"slices"
)

// Verify compares what is with what ADD made and names the first difference, nil when there is none. Addresses, routes
// and settings that others have added are not a difference.
func Verify(want, have Attachment) error {
	for _, check := range []func(want, have Attachment) error{verifyBridge, verifyPort, verifyPod, verifyForwarding} {
		if err := check(want, have); err != nil {
			return err
		}
	}
	return nil
}

func verifyBridge(want, have Attachment) error {
	place := "bridge " + want.Bridge.Name
	if have.Bridge.Name == "" {
		return fmt.Errorf("%s: is gone", place)
	}
	if want.Bridge.Promisc && !have.Bridge.Promisc {
		return fmt.Errorf("%s: is not promiscuous", place)
	}
	if err := verifyLeg(want.Bridge, have.Bridge); err != nil {
		return err
	}
	if want.Bridge.Leg != nil {
		place = "gateway " + want.Bridge.Leg.Name
	}
	if err := addrs(place, want.Bridge.Addrs, have.Bridge.Addrs); err != nil {
		return err
	}
	return settings("node", want.Settings, have.Settings)
}

func verifyPort(want, have Attachment) error {
	w, h, place := want.Port, have.Port, "port "+want.Port.Name
	switch {
	case h.Name == "":
		return fmt.Errorf("%s: is gone", place)
	case h.Bridge != w.Bridge:
		return fmt.Errorf("%s: is a port of %q, want %s", place, h.Bridge, w.Bridge)
	case h.Down != w.Down:
		return fmt.Errorf("%s: down is %t, want %t", place, h.Down, w.Down)
	case h.MTU != w.MTU:
		return fmt.Errorf("%s: MTU is %d, want %d", place, h.MTU, w.MTU)
	case h.Hairpin != w.Hairpin:
		return fmt.Errorf("%s: hairpin is %t, want %t", place, h.Hairpin, w.Hairpin)
	case h.Isolated != w.Isolated:
		return fmt.Errorf("%s: isolated is %t, want %t", place, h.Isolated, w.Isolated)
	case !h.Guard.Equal(w.Guard):
		return fmt.Errorf("%s: may send as %s, %v, want %s, %v", place, h.Guard.MAC, h.Guard.Addrs, w.Guard.MAC, w.Guard.Addrs)
	}
	return verifyVLANs(w, h)
}

func verifyPod(want, have Attachment) error {
	w, h, place := want.Pod, have.Pod, "pod interface "+want.Pod.Name
	switch {
	case h.Name == "":
		return fmt.Errorf("%s: is gone", place)
	case h.MAC != w.MAC:
		return fmt.Errorf("%s: MAC is %s, want %s", place, h.MAC, w.MAC)
	case h.MTU != w.MTU:
		return fmt.Errorf("%s: MTU is %d, want %d", place, h.MTU, w.MTU)
	case h.Down != w.Down:
		return fmt.Errorf("%s: down is %t, want %t", place, h.Down, w.Down)
	}
	if err := addrs(place, w.Addrs, h.Addrs); err != nil {
		return err
	}
	for _, r := range w.Routes {
		if !slices.ContainsFunc(h.Routes, r.Equal) {
			return fmt.Errorf("%s: route %s is missing", place, r)
		}
	}
	return settings(place, w.Settings, h.Settings)
}

// verifyForwarding comes last: where the pod's end is down the bridge has no carrier to forward by.
func verifyForwarding(want, have Attachment) error {
	if have.Port.Blocked && !want.Pod.Down {
		return fmt.Errorf("port %s: the bridge forwards nothing by it", want.Port.Name)
	}
	return nil
}

func addrs(place string, want, have []netip.Prefix) error {
	for _, a := range want {
		if !slices.Contains(have, a) {
			return fmt.Errorf("%s: address %s is missing", place, a)
		}
	}
	return nil
}

// settings treats an optional one that the kernel lacks as no difference.
func settings(place string, want, have []Setting) error {
	for _, w := range want {
		i := slices.IndexFunc(have, func(h Setting) bool { return h.Name == w.Name })
		switch {
		case i < 0 && w.Optional == "":
			return fmt.Errorf("%s: this kernel has no setting %s", place, w.Name)
		case i >= 0 && have[i].Value != w.Value:
			return fmt.Errorf("%s: %s is %s, want %s", place, w.Name, have[i].Value, w.Value)
		}
	}
	return nil
}
