// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/cni"
)

// ask is what the runtime wants of one attachment instead of what the plugin would choose.
type ask struct {
	addrs []netip.Addr
	mac   *attach.MAC
}

// requested reads addresses and MAC from runtimeConfig, args.cni and CNI_ARGS. Addresses add up; of the MACs the first
// place that has one counts.
func requested(c *cni.Call) (ask, error) {
	var a ask
	var runtimeIPs, argIPs []string
	var runtimeMAC, argMAC string
	var errs []error
	for _, get := range []func() (bool, error){
		func() (bool, error) { return c.Runtime("ips", &runtimeIPs) },
		func() (bool, error) { return c.CNIArg("ips", &argIPs) },
		func() (bool, error) { return c.Runtime("mac", &runtimeMAC) },
		func() (bool, error) { return c.CNIArg("mac", &argMAC) },
	} {
		_, err := get()
		errs = append(errs, err)
	}
	envIP, _ := c.EnvArg("IP")
	envMAC, _ := c.EnvArg("MAC")
	for _, from := range []struct {
		place string
		texts []string
	}{{"runtimeConfig.ips", runtimeIPs}, {"args.cni.ips", argIPs}, {"CNI_ARGS IP", strings.FieldsFunc(envIP, func(r rune) bool { return r == ',' })}} {
		for _, text := range from.texts {
			addr, err := parseAddr(strings.TrimSpace(text))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", from.place, err))
			} else if !slices.Contains(a.addrs, addr) {
				a.addrs = append(a.addrs, addr)
			}
		}
	}
	for _, from := range []struct{ place, text string }{{"runtimeConfig.mac", runtimeMAC}, {"args.cni.mac", argMAC}, {"CNI_ARGS MAC", envMAC}} {
		if from.text == "" {
			continue
		}
		mac, err := attach.ParseMAC(from.text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from.place, err))
		} else if a.mac == nil {
			a.mac = &mac
		}
	}
	return a, errors.Join(errs...)
}

// parseAddr reads an address with or without a length, which the range decides.
func parseAddr(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an address", s)
	}
	return a.Unmap(), nil
}
