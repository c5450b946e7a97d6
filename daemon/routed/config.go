// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/core/route"
	"github.com/l3edge/l3edge/pkg/edge/bgp"
	"github.com/l3edge/l3edge/pkg/edge/kube"
)

// raw is the configuration as people write it, in the file or as flags. conf/routed.yaml explains every key.
type raw struct {
	Node         string                 `json:"node"`
	ASN          uint32                 `json:"asn"`
	RouterID     string                 `json:"routerID"`
	Zone         string                 `json:"zone"`
	Groups       map[string]rawSettings `json:"groups"`
	Peers        []rawPeer              `json:"peers"`
	Nodes        []rawFor               `json:"nodes"`
	ListenRanges []string               `json:"listenRanges"`
	ListenGroup  string                 `json:"listenGroup"`
	Transit      *bool                  `json:"transit"`
	PodSubnets   []string               `json:"podSubnets"`
	Accept       []string               `json:"accept"`
	DefaultRoute bool                   `json:"defaultRoute"`
	Port         int                    `json:"port"`
	LocalAddress string                 `json:"localAddress"`
	HoldTime     string                 `json:"holdTime"`
	RestartTime  string                 `json:"restartTime"`
	MaxPrefixes  *uint32                `json:"maxPrefixes"`
	OnStop       string                 `json:"onStop"`
	BMP          []string               `json:"bmp"`
	PortalNet    bool                   `json:"announcePortalNet"`
	VIPs         bool                   `json:"announceVIPs"`
	Portald      string                 `json:"portaldSocket"`
	NodeFile     string                 `json:"nodeFile"`
	Socket       string                 `json:"socket"`
	Metrics      string                 `json:"metrics"`
	CNIConfDir   string                 `json:"cniConfDir"`
	Kubernetes   bool                   `json:"kubernetes"`
	Kubeconfig   string                 `json:"kubeconfig"`
	APIServer    string                 `json:"apiServer"`
	OnCordon     bool                   `json:"drainOnCordon"`
}

// config is valid by construction: parse makes it or says everything that is wrong.
type config struct {
	node       string
	asn        uint32     // 0: from the router ID
	routerID   netip.Addr // zero: found by findIdentity
	peers      []bgp.Peer
	listen     []netip.Prefix
	listenAs   bgp.Settings
	keyFiles   []string // the files that passwords came from
	transit    bool     // learned prefixes are passed on
	podSubnets []netip.Prefix
	accept     []route.Accept
	defRoute   bool
	port       int
	local      netip.Addr
	hold       time.Duration
	restart    time.Duration
	keep       bool             // a stop is a hand-over, too
	collectors []netip.AddrPort // BMP
	vips       route.VIPWish
	portald    string // its control socket
	metrics    string // where to serve them over TCP; empty: only on the control socket
	nodeFile   string
	socket     string
	zone       string
	api        *kube.Access // how to ask the cluster; nil: there is none
	asking     bool         // it has not said yet who this node is
	onCordon   bool         // service addresses leave a node that is cordoned
}

// families are those of the prefixes that this node deals with.
func (c config) families() (v4, v6 bool) {
	all := slices.Clone(c.podSubnets)
	for _, a := range c.accept {
		all = append(all, a.Prefix)
	}
	for _, p := range all {
		v4, v6 = v4 || p.Addr().Is4(), v6 || p.Addr().Is6()
	}
	return v4, v6
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
	return parseFor(r, nil, hostname, cniSubnets)
}

// parseFor is parse for a node of which the cluster says what member holds; nil: it has not yet. Then the peers and the
// pod subnets may be missing, and the config is one for asking.
func parseFor(r raw, member *kubeobj.Member, hostname string, cniSubnets func(dir string) ([]netip.Prefix, error)) (config, error) {
	var p problems
	c := config{node: r.Node, port: r.Port, defRoute: r.DefaultRoute, portald: r.Portald, metrics: r.Metrics, vips: route.VIPWish{Net: r.PortalNet, Hosts: r.VIPs}, nodeFile: r.NodeFile, socket: r.Socket, onCordon: r.OnCordon}
	if r.Kubernetes || r.Kubeconfig != "" || r.APIServer != "" {
		c.api = &kube.Access{Kubeconfig: r.Kubeconfig, Server: r.APIServer}
		c.asking = member == nil
	}
	checkNodes(&p, r.Nodes, readGroups(&problems{}, r))
	if member != nil {
		var err error
		r, err = r.forMember(*member)
		p.add("kubernetes", err)
	}
	c.asn, c.zone = r.ASN, r.Zone
	checkASN(&p, "asn", r.ASN)
	if c.node == "" {
		c.node = hostname
	}
	c.routerID = routerID(&p, "routerID", r.RouterID)
	c.local = address(&p, "localAddress", r.LocalAddress)
	c.hold = duration(&p, "holdTime", r.HoldTime, 3*time.Second, 65535*time.Second)
	c.restart = duration(&p, "restartTime", r.RestartTime, time.Second, 4095*time.Second)
	checkPort(&p, "port", r.Port)
	switch r.OnStop {
	case "", "withdraw":
	case "keep":
		c.keep = true
	default:
		p.add("onStop", fmt.Errorf("%q is neither withdraw nor keep", r.OnStop))
	}
	for i, s := range r.BMP {
		c.collectors = append(c.collectors, endpoint(&p, fmt.Sprintf("bmp[%d]", i), s))
	}
	if r.Metrics != "" {
		endpoint(&p, "metrics", r.Metrics)
	}
	groups := readGroups(&p, r)
	c.peers = readPeers(&p, r.Peers, groups)
	c.keyFiles = r.keyFiles()
	c.listenAs = groups.of(&p, "listenGroup", r.ListenGroup, rawSettings{})
	c.transit = len(r.ListenRanges) > 0 || slices.ContainsFunc(c.peers, func(x bgp.Peer) bool { return x.Reflect })
	if r.Transit != nil {
		c.transit = *r.Transit
	}
	c.listen = prefixes(&p, "listenRanges", r.ListenRanges)
	c.podSubnets = prefixes(&p, "podSubnets", r.PodSubnets)
	for i, s := range r.Accept {
		a, err := route.ParseAccept(s)
		p.add(fmt.Sprintf("accept[%d]", i), err)
		c.accept = append(c.accept, a)
	}
	if len(r.Peers)+len(r.ListenRanges) == 0 && !c.asking {
		p.add("peers", errors.New("none given, and no listenRanges: whom should we talk to? (--peer=NAME)"))
	}
	for i, a := range c.podSubnets {
		for j, b := range c.podSubnets[:i] {
			if a.IsValid() && b.IsValid() && a.Overlaps(b) {
				p.add(fmt.Sprintf("podSubnets[%d]", i), fmt.Errorf("%s overlaps podSubnets[%d] %s", a, j, b))
			}
		}
	}
	if !c.asking {
		fillIn(&p, &c, r.CNIConfDir, cniSubnets)
	}
	return c, errors.Join(p.errs...)
}

// fillIn finds the pod subnets that r does not name, and what may be learned because of them.
func fillIn(p *problems, c *config, dir string, cniSubnets func(dir string) ([]netip.Prefix, error)) {
	if len(c.podSubnets) == 0 && c.api == nil {
		found, err := cniSubnets(dir)
		p.add("podSubnets", err)
		c.podSubnets = found
		if err != nil {
			return
		}
	}
	switch {
	case len(c.podSubnets) > 0 || c.transit:
	case c.api != nil:
		p.add("podSubnets", fmt.Errorf("the cluster has given node %s none (spec.podCIDRs; kube-controller-manager --allocate-node-cidrs)", c.node))
		return
	default:
		p.add("podSubnets", fmt.Errorf("none given, and no bridge-l3 entry in %s names one (--pod-subnet=PREFIX)", dir))
		return
	}
	if len(c.accept) > 0 {
		return
	}
	for _, s := range c.podSubnets {
		if s.IsValid() {
			c.accept = append(c.accept, route.AcceptAll(node.ClusterPrefix(s)))
		}
	}
	if len(c.podSubnets) == 0 {
		p.add("accept", errors.New("a router without a pod subnet must be told which prefixes to learn (--accept=PREFIX)"))
	}
}
