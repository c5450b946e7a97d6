// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/peer"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
)

// rawPeer is a router to talk to. What it leaves out is taken from its group, and what that leaves out from the top.
type rawPeer struct {
	Name      string `json:"name"`
	Interface string `json:"interface"`
	Group     string `json:"group"`
	rawSettings
}

// rawSettings are what peers can share as a group. Zero means: as the next wider circle says.
type rawSettings struct {
	ASN          uint32   `json:"asn"`
	Port         int      `json:"port"`
	LocalAddress string   `json:"localAddress"`
	Pass         string   `json:"passwordFile"`
	GTSM         *bool    `json:"gtsm"`
	BFD          string   `json:"bfd"`
	HoldTime     string   `json:"holdTime"`
	ConnectRetry string   `json:"connectRetry"`
	MaxPrefixes  *uint32  `json:"maxPrefixes"`
	LongLived    string   `json:"longLivedRestartTime"`
	AddPaths     int      `json:"addPaths"`
	Reflect      *bool    `json:"routeReflectorClient"`
	Prefer       uint32   `json:"prefer"`
	MED          *uint32  `json:"med"`
	LocalPref    uint32   `json:"localPref"`
	Prepend      int      `json:"prepend"`
	Communities  []string `json:"communities"`
}

// within is r with what it leaves out taken from wider.
func (r rawSettings) within(wider rawSettings) rawSettings {
	inherit(&r.ASN, wider.ASN)
	inherit(&r.Port, wider.Port)
	inherit(&r.LocalAddress, wider.LocalAddress)
	inherit(&r.Pass, wider.Pass)
	inherit(&r.GTSM, wider.GTSM)
	inherit(&r.BFD, wider.BFD)
	inherit(&r.HoldTime, wider.HoldTime)
	inherit(&r.ConnectRetry, wider.ConnectRetry)
	inherit(&r.MaxPrefixes, wider.MaxPrefixes)
	inherit(&r.LongLived, wider.LongLived)
	inherit(&r.AddPaths, wider.AddPaths)
	inherit(&r.Reflect, wider.Reflect)
	inherit(&r.Prefer, wider.Prefer)
	inherit(&r.MED, wider.MED)
	inherit(&r.LocalPref, wider.LocalPref)
	inherit(&r.Prepend, wider.Prepend)
	if r.Communities == nil {
		r.Communities = wider.Communities
	}
	return r
}

func inherit[T comparable](v *T, wider T) {
	var zero T
	if *v == zero {
		*v = wider
	}
}

// parse checks the settings. Problems are told at place, which ends in a dot.
func (r rawSettings) parse(p *problems, place string) bgp.Settings {
	s := bgp.Settings{
		ASN: r.ASN, Port: r.Port, Prefer: r.Prefer, MaxPrefixes: defaultMaxPrefixes,
		GTSM: r.GTSM != nil && *r.GTSM, Reflect: r.Reflect != nil && *r.Reflect,
		Out: bgp.Out{MED: r.MED, LocalPref: r.LocalPref},
	}
	if r.MaxPrefixes != nil {
		s.MaxPrefixes = *r.MaxPrefixes
	}
	checkPort(p, place+"port", r.Port)
	checkASN(p, place+"asn", r.ASN)
	s.LocalAddress = address(p, place+"localAddress", r.LocalAddress)
	s.Password = password(p, place+"passwordFile", r.Pass)
	s.BFD = interval(p, place+"bfd", r.BFD)
	s.Hold = duration(p, place+"holdTime", r.HoldTime, 3*time.Second, 65535*time.Second)
	s.ConnectRetry = duration(p, place+"connectRetry", r.ConnectRetry, time.Second, time.Hour)
	s.LongLived = duration(p, place+"longLivedRestartTime", r.LongLived, time.Second, (1<<24-1)*time.Second) // 24 bits, RFC 9494
	s.AddPaths = count(p, place+"addPaths", r.AddPaths)
	s.Out.Prepend = count(p, place+"prepend", r.Prepend)
	for i, text := range r.Communities {
		c, err := peer.ParseCommunity(text)
		p.add(fmt.Sprintf("%scommunities[%d]", place, i), err)
		s.Out.Communities = append(s.Out.Communities, c)
	}
	return s
}

// count reads a small number of something.
func count(p *problems, place string, n int) uint8 {
	if n < 0 || n > 32 {
		p.add(place, fmt.Errorf("%d is not a number from 0 to 32", n))
	}
	return uint8(n)
}

// groups are settings by the name of the group; what is said at the top is in all of them.
type groups struct {
	top    rawSettings
	byName map[string]rawSettings
}

func readGroups(p *problems, r raw) groups {
	g := groups{top: rawSettings{MaxPrefixes: r.MaxPrefixes}, byName: r.Groups}
	for _, name := range slices.Sorted(maps.Keys(r.Groups)) {
		r.Groups[name].parse(p, "groups."+name+".")
	}
	return g
}

// of is what own settings come to within a group; no name: none.
func (g groups) of(p *problems, place, name string, own rawSettings) bgp.Settings {
	group, ok := g.byName[name]
	if name != "" && !ok {
		p.add(place, fmt.Errorf("there is no group %q", name))
	}
	own.parse(p, strings.TrimSuffix(place, "group")) // so that problems are told where they are, and once
	return own.within(group).within(g.top).parse(&problems{}, "")
}

func readPeers(p *problems, in []rawPeer, g groups) []bgp.Peer {
	var out []bgp.Peer
	seen := map[string]bool{}
	for i, x := range in {
		place := fmt.Sprintf("peers[%d].", i)
		peer := bgp.Peer{Name: x.Name + x.Interface, Interface: x.Interface != ""}
		switch {
		case x.Name == "" && x.Interface == "":
			p.add(place+"name", errors.New("missing"))
		case x.Name != "" && x.Interface != "":
			p.add(place+"interface", errors.New("a peer has a name or an interface, not both"))
		case seen[peer.Name]:
			p.add(place+"name", fmt.Errorf("%s is there twice", peer.Name))
		}
		seen[peer.Name] = true
		peer.Settings = g.of(p, place+"group", x.Group, x.rawSettings)
		a, err := netip.ParseAddr(x.Name)
		if err == nil {
			checkPeer(p, place+"name", a, peer.LocalAddress)
		}
		if local := peer.LocalAddress; err == nil && local.IsValid() && local.Is4() != a.Is4() {
			p.add(place+"localAddress", fmt.Errorf("from %s nobody reaches %s", local, a))
		}
		out = append(out, peer)
	}
	return out
}

// keyFiles are the files that passwords come from.
func (r raw) keyFiles() []string {
	var out []string
	add := func(path string) {
		if path != "" {
			out = append(out, path)
		}
	}
	for _, x := range r.Peers {
		add(x.Pass)
	}
	for _, g := range r.Groups {
		add(g.Pass)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// peerOptions says what parsePeer reads after the name.
const peerOptions = "interface, group=NAME, asn=N, port=N, password-file=PATH, gtsm or bfd=TIME"

// parsePeer reads --peer: "NAME[,interface][,group=NAME][,asn=N][,port=N][,password-file=PATH][,gtsm][,bfd=TIME]".
func parsePeer(s string) (rawPeer, error) {
	name, rest, more := strings.Cut(s, ",")
	x := rawPeer{Name: name}
	var errs []error
	for more {
		var opt string
		opt, rest, more = strings.Cut(rest, ",")
		key, val, _ := strings.Cut(opt, "=")
		n, err := strconv.ParseUint(val, 10, 32)
		yes := true
		switch {
		case opt == "interface":
			x.Name, x.Interface = "", name
		case key == "group" && val != "":
			x.Group = val
		case key == "password-file" && val != "":
			x.Pass = val
		case opt == "gtsm":
			x.GTSM = &yes
		case key == "bfd" && val != "":
			x.BFD = val
		case key == "asn" && err == nil && n > 0:
			x.ASN = uint32(n)
		case key == "port" && err == nil && n > 0 && n < 65536:
			x.Port = int(n)
		case key == "asn" || key == "port":
			errs = append(errs, fmt.Errorf("%s: %q is not a valid %s", s, val, key))
		default:
			errs = append(errs, fmt.Errorf("%s: %q is not an option: %s", s, opt, peerOptions))
		}
	}
	return x, errors.Join(errs...)
}
