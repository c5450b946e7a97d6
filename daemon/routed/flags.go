// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/spf13/pflag"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/mark"
)

// flags is the command line. What it says replaces what the file says, key by key.
type flags struct {
	set                    *pflag.FlagSet
	raw                    raw
	peers                  []string
	wrong                  []error // what flags say that cannot be read
	conf                   string
	member                 atomic.Pointer[kubeobj.Member] // what the cluster says of this node; nil: nothing yet
	check, dryRun, version bool
}

func newFlags() *flags {
	f := &flags{set: pflag.NewFlagSet("routed", pflag.ContinueOnError)}
	s := f.set
	s.SortFlags = false
	s.StringArrayVar(&f.peers, "peer", nil, "router to talk to, by name, address or link; its ASN is learned unless given; repeatable: `NAME[,interface][,group=NAME][,asn=N][,port=N][,password-file=PATH][,gtsm][,bfd=TIME]`")
	s.StringArrayVar(&f.raw.PodSubnets, "pod-subnet", nil, "`prefix` of this node's pods; repeatable (default: bridge-l3's in --cni-conf-dir)")
	number(f, &f.raw.ASN, "asn", "own AS `number` (default: 4200000000 + the low 24 bits of the router ID)")
	s.StringVar(&f.raw.RouterID, "router-id", "", "BGP identifier, an `address` (default: the source address towards the first peer that there is a way to)")
	s.StringArrayVar(&f.raw.ListenRanges, "listen-range", nil, "be a router: whoever connects from this `prefix` is a peer; repeatable")
	s.StringArrayVar(&f.raw.Accept, "accept", nil, "learn what lies inside `prefix[,min=N][,max=N]`; repeatable (default: the /16 around the pod subnet)")
	s.BoolVar(&f.raw.DefaultRoute, "default-route", false, "learn the default route too")
	number(f, &f.raw.Port, "port", "TCP `port` to listen on (default 179)")
	s.StringVar(&f.raw.LocalAddress, "local-address", "", "listen on and connect from this `address` only")
	s.StringVar(&f.raw.HoldTime, "hold-time", "9s", "a silent peer is down after this `time`")
	s.StringVar(&f.raw.RestartTime, "restart-time", "120s", "`time` for which peers keep our routes while we restart")
	s.StringVar(&f.raw.OnStop, "on-stop", "withdraw", "what SIGTERM means, `withdraw|keep`: leave the fabric, or hand over to the next process as SIGUSR2 does")
	s.BoolVar(&f.raw.PortalNet, "announce-portal-net", false, "announce the portal net as one prefix while portald has it programmed")
	s.BoolVar(&f.raw.VIPs, "announce-vips", false, "announce service addresses outside the portal net while an endpoint is ready")
	s.StringVar(&f.raw.Portald, "portald-socket", mark.PortaldSocket, "`path` of portald's control socket")
	s.StringVar(&f.raw.Node, "node", "", "`name` of this node (default: the host name)")
	s.StringVar(&f.raw.NodeFile, "node-file", mark.NodeFile, "`file` to publish the node's facts in")
	s.StringVar(&f.raw.Socket, "socket", mark.RoutedSocket, "`path` of the control socket")
	s.BoolVar(&f.raw.Kubernetes, "kubernetes", false, "learn the pod subnets, zone, labels and annotations of this node from the Kubernetes API server, by this pod's service account or --kubeconfig")
	s.StringVar(&f.raw.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server; implies --kubernetes")
	s.StringVar(&f.raw.APIServer, "api-server", "", "`URL` of the API server itself, not of its service; implies --kubernetes")
	s.BoolVar(&f.raw.OnCordon, "drain-on-cordon", false, "service addresses leave a node that is cordoned")
	s.StringVar(&f.raw.Metrics, "metrics", "", "serve /metrics, /healthz and /readyz over TCP at this `address`, such as 127.0.0.1:9479 (default: only on the control socket)")
	s.StringVar(&f.raw.CNIConfDir, "cni-conf-dir", mark.CNIConfDir, "`directory` of the CNI configuration")
	s.StringVar(&f.conf, "conf", "", "configuration `file` (see conf/routed.yaml)")
	s.BoolVar(&f.check, "check", false, "check the configuration and exit")
	s.BoolVar(&f.dryRun, "dry-run", false, "print what would be done and exit")
	s.BoolVar(&f.version, "version", false, "print the version and exit")
	s.Usage = func() {
		fmt.Fprintf(s.Output(), "routed announces this node's pod subnet by BGP and keeps the others' in the kernel.\n\n"+
			"Usage:\n  routed --peer=NAME [flags]\n  routed status [--json] [--socket=path]\n  routed drain [--for=time] [--wait[=time]] [--socket=path]\n  routed undrain [--socket=path]\n\nFlags:\n%s", s.FlagUsages())
	}
	return f
}

// config is the file's and the flags' together, checked.
func (f *flags) config() (config, error) {
	r := raw{Port: 179}
	var wrong []error
	if f.conf != "" {
		var err error
		if r, wrong, err = readFile(f.conf); err != nil {
			return config{}, err
		}
	}
	wrong = append(wrong, f.wrong...)
	for i, s := range f.peers {
		if i == 0 {
			r.Peers = nil
		}
		p, err := parsePeer(s)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("--peer: %w", err))
		}
		r.Peers = append(r.Peers, p)
	}
	take(f.set, "pod-subnet", &r.PodSubnets, f.raw.PodSubnets)
	take(f.set, "asn", &r.ASN, f.raw.ASN)
	take(f.set, "router-id", &r.RouterID, f.raw.RouterID)
	take(f.set, "listen-range", &r.ListenRanges, f.raw.ListenRanges)
	take(f.set, "accept", &r.Accept, f.raw.Accept)
	take(f.set, "default-route", &r.DefaultRoute, f.raw.DefaultRoute)
	take(f.set, "port", &r.Port, f.raw.Port)
	take(f.set, "local-address", &r.LocalAddress, f.raw.LocalAddress)
	take(f.set, "hold-time", &r.HoldTime, f.raw.HoldTime)
	take(f.set, "restart-time", &r.RestartTime, f.raw.RestartTime)
	take(f.set, "on-stop", &r.OnStop, f.raw.OnStop)
	take(f.set, "node", &r.Node, f.raw.Node)
	take(f.set, "announce-portal-net", &r.PortalNet, f.raw.PortalNet)
	take(f.set, "announce-vips", &r.VIPs, f.raw.VIPs)
	take(f.set, "metrics", &r.Metrics, f.raw.Metrics)
	take(f.set, "kubernetes", &r.Kubernetes, f.raw.Kubernetes)
	take(f.set, "kubeconfig", &r.Kubeconfig, f.raw.Kubeconfig)
	take(f.set, "api-server", &r.APIServer, f.raw.APIServer)
	take(f.set, "drain-on-cordon", &r.OnCordon, f.raw.OnCordon)
	def(f.set, "portald-socket", &r.Portald, f.raw.Portald)
	def(f.set, "node-file", &r.NodeFile, f.raw.NodeFile)
	def(f.set, "socket", &r.Socket, f.raw.Socket)
	def(f.set, "cni-conf-dir", &r.CNIConfDir, f.raw.CNIConfDir)
	host, err := os.Hostname()
	if err != nil {
		return config{}, fmt.Errorf("node name: %w", err)
	}
	c, err := parseFor(r, f.member.Load(), host, cniSubnets)
	if self, err := hostAddresses(nil); err == nil {
		wrong = append(wrong, checkSelf(c.peers, self)...)
	}
	if err = errors.Join(append(wrong, err)...); err != nil {
		return config{}, err
	}
	return c, nil
}

// number adds a flag whose value need not be one: config tells of it together with everything else.
func number[T int | uint32](f *flags, v *T, name, usage string) {
	f.set.Func(name, usage, func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			f.wrong = append(f.wrong, fmt.Errorf("--%s: %q is not a number from 0 to %d", name, s, uint32(math.MaxUint32)))
		}
		*v = T(n)
		return nil
	})
}

// take overrides a key by a flag that was given.
func take[T any](s *pflag.FlagSet, name string, key *T, val T) {
	if s.Changed(name) {
		*key = val
	}
}

// def does so too, and lets the flag's default stand in for a key that is not there.
func def(s *pflag.FlagSet, name string, key *string, val string) {
	if s.Changed(name) || *key == "" {
		*key = val
	}
}
