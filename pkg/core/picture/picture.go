// SPDX-License-Identifier: Apache-2.0

// Package picture draws the network as the article does, from views of its hosts: the switch, its segments, nodes as
// routers with their bridges and pods, and services. What it draws is what was seen.
package picture

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/core/walk"
)

// Picture is what is to be drawn.
type Picture struct {
	Switch   Switch    `json:"switch"`
	Segments []Segment `json:"segments"`
	Services []Service `json:"services"`
}

// Switch is the multilayer switch. Without a view of it, it is what nodes' sessions say.
type Switch struct {
	Name string `json:"name"`
	Note string `json:"note"` // "AS 64512, 4 sessions"
}

// Segment is one network of the switch and who is on it, nodes first.
type Segment struct {
	Prefix netip.Prefix `json:"prefix"`
	Switch netip.Addr   `json:"switch,omitzero"` // the switch's address in it
	Hosts  []Host       `json:"hosts"`
}

// Host is one host. One that runs no pods has no bridge.
type Host struct {
	Name    string       `json:"name"`
	Addr    netip.Addr   `json:"address"`
	Session Health       `json:"session"`
	Note    string       `json:"note,omitempty"` // of the session
	Bridge  string       `json:"bridge,omitempty"`
	Gateway netip.Prefix `json:"gateway,omitzero"`
	Pods    []Pod        `json:"pods,omitempty"`
}

// Health is how a session stands.
type Health string

// The states of sessions. None: there is none to expect.
const (
	Up   Health = "up"
	Down Health = "down"
	None Health = "none"
)

// Pod is a pod and the processes that share it, its pause first.
type Pod struct {
	Name   string     `json:"name"`
	Addr   netip.Addr `json:"address"`
	Shared string     `json:"shared,omitempty"` // "pause, web8080"
}

// Service is one portal.
type Service struct {
	Name      string   `json:"name"`
	At        string   `json:"at"` // "10.100.87.105:80"
	Mode      string   `json:"mode"`
	Endpoints []string `json:"endpoints"` // "10.10.10.2:8080 web8080-1"
}

// Of makes the picture of what was seen.
func Of(w walk.World) Picture {
	p := Picture{Switch: theSwitch(w)}
	segments := map[netip.Prefix]*Segment{}
	for _, h := range w {
		if w.IsSwitch(h) {
			continue
		}
		on := h.Primary()
		l, ok := h.Own(on)
		if !ok {
			continue
		}
		var net netip.Prefix
		for _, a := range l.Addrs {
			if a.Addr() == on {
				net = a.Masked()
			}
		}
		s := segments[net]
		if s == nil {
			s = &Segment{Prefix: net}
			if r, ok := h.Lookup(netip.IPv4Unspecified()); ok && net.Contains(r.Via) {
				s.Switch = r.Via
			}
			segments[net] = s
		}
		s.Hosts = append(s.Hosts, host(h, on))
	}
	for _, s := range segments {
		slices.SortFunc(s.Hosts, func(a, b Host) int {
			return cmp.Or(cmp.Compare(b2i(a.Bridge == ""), b2i(b.Bridge == "")), a.Addr.Compare(b.Addr))
		})
		p.Segments = append(p.Segments, *s)
	}
	slices.SortFunc(p.Segments, func(a, b Segment) int { return a.Prefix.Compare(b.Prefix) })
	p.Segments = append(p.Segments, unseen(w)...)
	p.Services = services(w)
	return p
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// theSwitch is the switch as it was seen, or as sessions tell of it.
func theSwitch(w walk.World) Switch {
	for _, h := range w {
		if w.IsSwitch(h) {
			up := 0
			for _, s := range h.Routed.Sessions {
				up += b2i(s.Up())
			}
			note := fmt.Sprintf("AS %d, %d of %d sessions up", h.Routed.ASN, up, len(h.Routed.Sessions))
			if h.Routed.Problem != "" {
				note = fmt.Sprintf("%d routes", len(h.Routes))
			}
			return Switch{h.Name, note}
		}
	}
	for _, h := range w {
		for _, s := range h.Routed.Sessions {
			if !s.Dynamic {
				return Switch{s.Peer, fmt.Sprintf("AS %d, as %s sees it", s.ASN, h.Name)}
			}
		}
	}
	return Switch{"switch", "no session was seen"}
}

func host(h view.Host, addr netip.Addr) Host {
	out := Host{Name: h.Name, Addr: addr, Session: None}
	for _, s := range h.Routed.Sessions {
		out.Session, out.Note = Up, fmt.Sprintf("%d in, %d out", s.In, s.Out)
		if !s.Up() {
			out.Session, out.Note = Down, s.State
			break
		}
	}
	if len(h.PodSubnets()) > 0 && out.Session == None {
		out.Session, out.Note = Down, "no session"
	}
	for _, n := range h.Networks {
		out.Bridge = n.Bridge
		if b, ok := h.Link(n.Bridge); ok {
			for _, a := range b.Addrs {
				if !a.Addr().IsLinkLocalUnicast() && !out.Gateway.IsValid() {
					out.Gateway = a
				}
			}
		}
	}
	if !out.Gateway.IsValid() && len(h.PodSubnets()) > 0 { // the first pod makes the bridge
		out.Gateway = h.PodSubnets()[0]
	}
	for _, p := range h.Pods {
		if !p.Alive || len(p.Addrs) == 0 {
			continue
		}
		var names []string
		for _, c := range p.Processes {
			names = append(names, c.Name)
		}
		out.Pods = append(out.Pods, Pod{p.Short(), p.Addrs[0], strings.Join(names, ", ")})
	}
	return out
}

// unseen are the nodes that only routes tell of.
func unseen(w walk.World) []Segment {
	known := map[netip.Prefix]bool{}
	for _, h := range w {
		for _, s := range h.PodSubnets() {
			known[s] = true
		}
	}
	s := Segment{}
	for _, h := range w {
		for _, r := range h.Routed.Routes {
			if len(r.Via) > 0 && !known[r.Prefix] {
				known[r.Prefix] = true
				s.Hosts = append(s.Hosts, Host{Name: "a node not seen", Addr: r.Via[0], Session: None, Note: "by its route", Bridge: "pods", Gateway: r.Prefix})
			}
		}
	}
	if len(s.Hosts) == 0 {
		return nil
	}
	return []Segment{s}
}

func services(w walk.World) []Service {
	var out []Service
	seen := map[string]bool{}
	for _, h := range w {
		for _, p := range h.Portald.Portals {
			x := Service{Name: p.Name(), At: netip.AddrPortFrom(p.VIP, p.Port).String(), Mode: p.Mode}
			if seen[x.Name+x.At] {
				continue
			}
			seen[x.Name+x.At] = true
			for _, e := range p.Endpoints {
				text := e.String()
				if _, pod, ok := w.Pod(e.Addr()); ok && pod.Alive {
					text += " " + pod.Short()
				} else if h, ok := w.Owner(e.Addr()); ok {
					text += " " + h.Name
				}
				x.Endpoints = append(x.Endpoints, text)
			}
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b Service) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.At, b.At)) })
	return out
}

// label is what a segment is called.
func (s Segment) label() string {
	if !s.Prefix.IsValid() {
		return "known by routes only"
	}
	if s.Switch.IsValid() {
		return fmt.Sprintf("%s, gateway %s", s.Prefix, s.Switch)
	}
	return s.Prefix.String()
}

// bridgeText is "docker0 10.10.10.1/24".
func (h Host) bridgeText() string { return h.Bridge + " " + h.Gateway.String() }
