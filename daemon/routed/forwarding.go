// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/fib"
	"github.com/l3edge/l3edge/pkg/edge/link"
	"github.com/l3edge/l3edge/pkg/edge/sysctl"
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

// podIntents are the pod subnets, with the proof for each: the node forwards its family, on the links to the peers and on
// that of the pods, which is up. Where there is no such link yet the first pod brings it.
func podIntents(conf config, uplinks []string) []route.Intent {
	var out []route.Intent
	all, err := link.HostPrefixes()
	for _, p := range conf.podSubnets {
		lacks := lacksForwarding(p, uplinks)
		for _, h := range all {
			if lacks == "" && p.Contains(h.Addr) {
				lacks = lacksLink(p, h.Link)
			}
		}
		if lacks == "" && err != nil {
			lacks = err.Error()
		}
		out = append(out, route.Intent{Prefix: p, Why: "pod subnet", Lacks: lacks, Sink: true})
	}
	return out
}

func lacksForwarding(p netip.Prefix, uplinks []string) string {
	if p.Addr().Is6() { // the kernel heeds only one setting
		return lacksSetting("net/ipv6/conf/all/forwarding")
	}
	lacks := lacksSetting("net/ipv4/ip_forward")
	for _, l := range uplinks {
		lacks = cmp.Or(lacks, lacksSetting("net/ipv4/conf/"+l+"/forwarding"))
	}
	return lacks
}

// lacksLink looks at the link that pods of a subnet are behind.
func lacksLink(p netip.Prefix, name string) string {
	switch up, err := link.IsUp(name); {
	case err != nil:
		return err.Error()
	case !up:
		return "the pods' link " + name + " is down"
	case p.Addr().Is4():
		return lacksSetting("net/ipv4/conf/" + name + "/forwarding")
	}
	return ""
}

func lacksSetting(path string) string {
	switch on, err := sysctl.Get(path); {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(path, "/ipv4/conf/"): // the link has just gone
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err.Error()
	case on != "1":
		return "forwarding is off (" + strings.ReplaceAll(path, "/", ".") + ")"
	}
	return ""
}

// uplinks are the links that lead to peers.
type uplinks struct {
	mu     sync.Mutex
	byPeer map[string]string
}

func (u *uplinks) list() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	names := slices.Sorted(maps.Values(u.byPeer))
	return slices.Compact(names)
}

// put notes which link leads to a peer and reports whether that is news.
func (u *uplinks) put(peer, link string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byPeer == nil {
		u.byPeer = map[string]string{}
	}
	delete(u.byPeer, unnamed)
	news := u.byPeer[peer] != link
	u.byPeer[peer] = link
	return news
}

// unnamed stands for the peers before the first session.
const unnamed = ""

func (u *uplinks) drop(peer string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byPeer, peer)
}

// findUplink learns which link leads to the peer of a new session.
func (d *wiring) findUplink(s bgp.Session) {
	switch {
	case len(d.conf.Load().podSubnets) == 0:
		return
	case s.State != bgp.Established:
		if s.Dynamic {
			d.uplinks.drop(s.Peer)
		}
		return
	}
	name := s.Address.Zone()
	if name == "" {
		var err error
		if _, name, err = link.SourceFor(s.Address); err != nil { // it has gone again
			return
		}
	}
	if d.uplinks.put(s.Peer, name) && d.router != nil {
		d.router.SetIntents(d.intents())
		d.loop.Trigger()
	}
}

// firstUplink is the link whose address makes the node what it is, for as long as there has been no session.
func (d *wiring) firstUplink(id identity) {
	all, err := link.HostPrefixes()
	if i := slices.IndexFunc(all, func(h link.HostPrefix) bool { return h.Addr == id.source }); err == nil && i >= 0 {
		d.uplinks.put(unnamed, all[i].Link)
	}
}
