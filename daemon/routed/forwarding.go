// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/fib"
)

// forward makes the host a router: of IPv4, and of IPv6 where any of it is routed here.
func forward(conf config, log *slog.Logger) {
	routed := slices.Clone(conf.podSubnets)
	for _, a := range conf.accept {
		routed = append(routed, a.Prefix)
	}
	families := []func() (bool, error){fib.EnableForwarding}
	if slices.ContainsFunc(routed, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		families = append(families, fib.EnableForwarding6)
	}
	for i, enable := range families {
		family := []string{"IPv4", "IPv6"}[i]
		if on, err := enable(); err != nil {
			log.Warn("cannot turn on forwarding", "family", family, "problem", err)
		} else if on {
			log.Info("turned on forwarding", "family", family)
		}
	}
}

// podIntents are the pod subnets, with the proof for each: the node forwards its family.
func podIntents(conf config) []route.Intent {
	var out []route.Intent
	for _, p := range conf.podSubnets {
		out = append(out, route.Intent{Prefix: p, Why: "pod subnet", Lacks: lacksForwarding(p), Sink: true})
	}
	return out
}

func lacksForwarding(p netip.Prefix) string {
	is, setting := fib.Forwarding, "net.ipv4.ip_forward"
	if p.Addr().Is6() {
		is, setting = fib.Forwarding6, "net.ipv6.conf.all.forwarding"
	}
	switch on, err := is(); {
	case err != nil:
		return err.Error()
	case !on:
		return "forwarding is off (" + setting + ")"
	}
	return ""
}
