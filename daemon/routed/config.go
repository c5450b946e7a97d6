// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/core/subnet"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
)

// raw is the configuration as people write it, in the file or as flags. conf/routed.yaml explains every key.
type raw struct {
	Node         string    `json:"node"`
	ASN          uint32    `json:"asn"`
	RouterID     string    `json:"routerID"`
	Peers        []rawPeer `json:"peers"`
	ListenRanges []string  `json:"listenRanges"`
	PodSubnets   []string  `json:"podSubnets"`
	Accept       []string  `json:"accept"`
	DefaultRoute bool      `json:"defaultRoute"`
	Port         int       `json:"port"`
	LocalAddress string    `json:"localAddress"`
	HoldTime     string    `json:"holdTime"`
	RestartTime  string    `json:"restartTime"`
	MaxPrefixes  *uint32   `json:"maxPrefixes"`
	ListenPass   string    `json:"listenPasswordFile"`
	ListenBFD    string    `json:"listenBFD"`
	PortalNet    bool      `json:"announcePortalNet"`
	VIPs         bool      `json:"announceVIPs"`
	Portald      string    `json:"portaldSocket"`
	NodeFile     string    `json:"nodeFile"`
	Socket       string    `json:"socket"`
	Metrics      string    `json:"metrics"`
	CNIConfDir   string    `json:"cniConfDir"`
}

type rawPeer struct {
	Name string `json:"name"`
	ASN  uint32 `json:"asn"`
	Port int    `json:"port"`
	Pass string `json:"passwordFile"`
	GTSM bool   `json:"gtsm"`
	BFD  string `json:"bfd"`
}

// config is valid by construction: parse makes it or says everything that is wrong.
type config struct {
	node       string
	asn        uint32     // 0: from the router ID
	routerID   netip.Addr // zero: the source address towards the first peer, or the lowest address
	peers      []bgp.Peer
	listen     []netip.Prefix
	podSubnets []netip.Prefix
	accept     []route.Accept
	defRoute   bool
	port       int
	local      netip.Addr
	hold       time.Duration
	restart    time.Duration
	max        uint32 // prefixes a peer may send; 0: no limit
	listenPass string
	listenBFD  time.Duration
	vips       route.VIPWish
	portald    string // its control socket
	metrics    string // where to serve them over TCP; empty: only on the control socket
	nodeFile   string
	socket     string
}

// readFile reads the YAML file; unknown keys are errors.
func readFile(path string) (raw, error) {
	var r raw
	data, err := os.ReadFile(path)
	if err != nil {
		return raw{}, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &r); err != nil {
		return raw{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// problems collects everything that is wrong, each with its place.
type problems struct{ errs []error }

func (p *problems) add(place string, err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", place, err))
	}
}

// parse checks r and fills in what the node itself knows. cniSubnets is asked only when no pod subnet is given.
func parse(r raw, hostname string, cniSubnets func(dir string) ([]netip.Prefix, error)) (config, error) {
	var p problems
	c := config{node: r.Node, asn: r.ASN, port: r.Port, defRoute: r.DefaultRoute, portald: r.Portald, metrics: r.Metrics, vips: route.VIPWish{Net: r.PortalNet, Hosts: r.VIPs}, nodeFile: r.NodeFile, socket: r.Socket}
	if c.node == "" {
		c.node = hostname
	}
	c.routerID = address(&p, "routerID", r.RouterID)
	c.local = address(&p, "localAddress", r.LocalAddress)
	c.hold = duration(&p, "holdTime", r.HoldTime, 3*time.Second, 65535*time.Second)
	c.restart = duration(&p, "restartTime", r.RestartTime, time.Second, 4095*time.Second)
	checkPort(&p, "port", r.Port)
	c.max = defaultMaxPrefixes
	if r.MaxPrefixes != nil {
		c.max = *r.MaxPrefixes
	}
	if _, err := netip.ParseAddrPort(r.Metrics); r.Metrics != "" && err != nil {
		p.add("metrics", fmt.Errorf("%q is not ADDRESS:PORT", r.Metrics))
	}
	c.listenBFD = interval(&p, "listenBFD", r.ListenBFD)
	c.listenPass = password(&p, "listenPasswordFile", r.ListenPass)
	c.peers = peers(&p, r.Peers)
	c.listen = prefixes(&p, "listenRanges", r.ListenRanges)
	c.podSubnets = prefixes(&p, "podSubnets", r.PodSubnets)
	for i, s := range r.Accept {
		a, err := route.ParseAccept(s)
		p.add(fmt.Sprintf("accept[%d]", i), err)
		c.accept = append(c.accept, a)
	}
	if len(r.Peers)+len(r.ListenRanges) == 0 {
		p.add("peers", errors.New("none given, and no listenRanges: whom should we talk to? (--peer=NAME)"))
	}
	if len(p.errs) > 0 {
		return config{}, errors.Join(p.errs...)
	}
	if len(c.podSubnets) == 0 {
		found, err := cniSubnets(r.CNIConfDir)
		p.add("podSubnets", err)
		c.podSubnets = found
	}
	if len(c.podSubnets) == 0 && len(c.listen) == 0 && len(p.errs) == 0 {
		p.add("podSubnets", fmt.Errorf("none given, and no bridge-l3 entry in %s names one (--pod-subnet=PREFIX)", r.CNIConfDir))
	}
	if len(c.accept) == 0 {
		for _, s := range c.podSubnets {
			c.accept = append(c.accept, route.AcceptAll(node.ClusterPrefix(s)))
		}
	}
	if len(c.accept) == 0 && len(p.errs) == 0 {
		p.add("accept", errors.New("a router without a pod subnet must be told which prefixes to learn (--accept=PREFIX)"))
	}
	p.add("podSubnets", node.Node{Name: c.node, PodSubnets: c.podSubnets}.Validate())
	return c, errors.Join(p.errs...)
}

func peers(p *problems, in []rawPeer) []bgp.Peer {
	var out []bgp.Peer
	seen := map[string]bool{}
	for i, x := range in {
		place := fmt.Sprintf("peers[%d]", i)
		switch {
		case x.Name == "":
			p.add(place+".name", errors.New("missing"))
		case seen[x.Name]:
			p.add(place+".name", fmt.Errorf("%s is there twice", x.Name))
		}
		if a, err := netip.ParseAddr(x.Name); err == nil && !a.Is4() {
			p.add(place+".name", fmt.Errorf("%s: sessions over IPv6 are not spoken yet", a))
		}
		seen[x.Name] = true
		checkPort(p, place+".port", x.Port)
		out = append(out, bgp.Peer{
			Name: x.Name, ASN: x.ASN, Port: x.Port, GTSM: x.GTSM, Password: password(p, place+".passwordFile", x.Pass),
			BFD: interval(p, place+".bfd", x.BFD),
		})
	}
	return out
}

// defaultMaxPrefixes is far above any cluster and far below what hurts.
const defaultMaxPrefixes = 250_000

// password reads a key for TCP MD5: the file's text without the line end. Others must not be able to read it.
func password(p *problems, place, path string) string {
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		p.add(place, err)
		return ""
	}
	if info.Mode().Perm()&0o077 != 0 {
		p.add(place, fmt.Errorf("%s is readable by others: chmod 600", path))
	}
	b, err := os.ReadFile(path)
	p.add(place, err)
	key := strings.TrimRight(string(b), "\r\n")
	if len(key) < 1 || len(key) > 80 {
		p.add(place, fmt.Errorf("%s holds %d bytes, a TCP MD5 key has 1 to 80", path, len(key)))
	}
	return key
}

func prefixes(p *problems, place string, in []string) []netip.Prefix {
	var out []netip.Prefix
	for i, s := range in {
		x, err := subnet.Parse(s)
		if err == nil && !x.Addr().Is4() {
			err = fmt.Errorf("%s: IPv6 is not spoken yet", x)
		}
		p.add(fmt.Sprintf("%s[%d]", place, i), err)
		out = append(out, x)
	}
	return out
}

func address(p *problems, place, s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		p.add(place, fmt.Errorf("%q is not an IPv4 address", s))
	}
	return a
}

func duration(p *problems, place, s string, least, most time.Duration) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most || d%time.Second != 0 {
		p.add(place, fmt.Errorf("%q is not a number of whole seconds from %s to %s", s, least, most))
	}
	return d
}

// interval reads BFD's.
func interval(p *problems, place, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 10*time.Millisecond || d > 10*time.Second {
		p.add(place, fmt.Errorf("%q is not a time from 10ms to 10s", s))
	}
	return d
}

func checkPort(p *problems, place string, port int) {
	if port < 0 || port > 65535 {
		p.add(place, fmt.Errorf("%d is not a port", port))
	}
}

// parsePeer reads --peer: "NAME[,asn=N][,port=N][,password-file=PATH][,gtsm][,bfd=TIME]".
func parsePeer(s string) (rawPeer, error) {
	name, rest, more := strings.Cut(s, ",")
	x := rawPeer{Name: name}
	for more {
		var opt string
		opt, rest, more = strings.Cut(rest, ",")
		key, val, _ := strings.Cut(opt, "=")
		n, err := strconv.ParseUint(val, 10, 32)
		switch {
		case key == "password-file" && val != "":
			x.Pass = val
		case opt == "gtsm":
			x.GTSM = true
		case key == "bfd" && val != "":
			x.BFD = val
		case key == "asn" && err == nil && n > 0:
			x.ASN = uint32(n)
		case key == "port" && err == nil && n > 0 && n < 65536:
			x.Port = int(n)
		case key == "asn" || key == "port":
			return x, fmt.Errorf("%s: %q is not a valid %s", s, val, key)
		default:
			return x, fmt.Errorf("%s: %q is not an option: asn=N, port=N, password-file=PATH, gtsm or bfd=TIME", s, opt)
		}
	}
	return x, nil
}

// cniSubnets finds the subnets of the first bridge-l3 entry that has one, in the order in which a runtime reads dir.
func cniSubnets(dir string) ([]netip.Prefix, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist"))
	if err != nil {
		return nil, err
	}
	for _, path := range files { // Glob sorts
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read CNI configuration: %w", err)
		}
		found, err := conflistSubnets(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

// conflistSubnets reads both ways to write it: "subnet", and host-local's "ipam".
func conflistSubnets(data []byte) ([]netip.Prefix, error) {
	var list struct {
		Plugins []struct {
			Type   string `json:"type"`
			Subnet string `json:"subnet"`
			IPAM   struct {
				Subnet string `json:"subnet"`
				Ranges [][]struct {
					Subnet string `json:"subnet"`
				} `json:"ranges"`
			} `json:"ipam"`
		} `json:"plugins"`
	}
	if err := yaml.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	var out []netip.Prefix
	var errs []error
	for i, pl := range list.Plugins {
		if pl.Type != "bridge-l3" || len(out) > 0 {
			continue
		}
		all := []string{pl.Subnet, pl.IPAM.Subnet}
		for _, set := range pl.IPAM.Ranges {
			for _, r := range set {
				all = append(all, r.Subnet)
			}
		}
		for _, s := range all {
			if s == "" {
				continue
			}
			x, err := subnet.Parse(s)
			if err != nil {
				errs = append(errs, fmt.Errorf("plugins[%d]: %w", i, err))
			} else if x.Addr().Is4() {
				out = append(out, x)
			}
		}
	}
	return out, errors.Join(errs...)
}
