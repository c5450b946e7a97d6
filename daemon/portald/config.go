// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/subnet"
	"github.com/l3edge/l3edge/pkg/edge/kube"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// config is what the command line says, valid by construction.
type config struct {
	services   string
	api        kube.Access // how to reach the API server, if it is the source
	nets       []netip.Prefix
	nodePorts  []netip.Prefix // which of the node's addresses answer NodePorts; none: its first of each family
	followNets bool           // as the API server says, not nets
	mode       portals.Mode
	nodeFile   string
	socket     string
	remember   string // where the last good manifests are kept
	portsFile  string
	metrics    string // host:port; empty: none
	resync     time.Duration
	drain      time.Duration
	level      slog.Level

	kubernetes, localhost, dryRun, once, cleanup, version bool
}

// usageError is a mistake on the command line: exit code 2.
type usageError struct{ error }

// texts are flags that are read further.
type texts struct{ nets, nodePorts string }

// flags declares the command line; c and t receive the values.
func flags(c *config, t *texts) *flag.FlagSet {
	fs := flag.NewFlagSet("portald", flag.ContinueOnError)
	fs.StringVar(&c.services, "services", "", "`directory` of Kubernetes v1 Service and discovery.k8s.io/v1 EndpointSlice manifests (*.yaml, *.yml, *.json); changes take effect at once")
	fs.BoolVar(&c.kubernetes, "kubernetes", false, "read Services and EndpointSlices from the Kubernetes API server, by this pod's service account or --kubeconfig")
	fs.StringVar(&c.api.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server; implies --kubernetes")
	fs.StringVar(&c.api.Server, "api-server", "", "`URL` of the API server itself, or the path of a file that holds it: its service address cannot be used by whoever answers for it; implies --kubernetes")
	fs.StringVar(&t.nodePorts, "nodeport-addresses", "primary", "`prefixes` with commas between, in which the node's addresses answer NodePorts; primary: its first address of each family")
	fs.BoolVar(&c.localhost, "localhost-nodeports", false, "answer NodePorts on 127.0.0.1 too, for the node's own processes; in nftables mode this sets net.ipv4.conf.all.route_localnet")
	fs.StringVar(&t.nets, "portal-net", "10.100.0.0/16", "`prefixes` that cluster addresses of services come from, with commas between; must not overlap pod or host subnets; from the API server unless given with --kubernetes")
	fs.StringVar((*string)(&c.mode), "mode", string(portals.NFTables), "answer in this `mode`: nftables, in the kernel, or userspace, by a proxy behind the iptables chains KUBE-PORTALS-*")
	fs.StringVar(&c.nodeFile, "node-file", mark.NodeFile, "`file` in which routed describes the node; it may appear later")
	fs.StringVar(&c.socket, "socket", mark.PortaldSocket, "control socket `path`")
	fs.StringVar(&c.portsFile, "ports-file", mark.RunDir+"/proxy-ports.json", "`file` that keeps the proxy ports of userspace mode over a restart")
	fs.StringVar(&c.remember, "remember", mark.RunDir+"/manifests", "`directory` that keeps the last good manifests over a restart; empty: they are not kept")
	fs.StringVar(&c.metrics, "metrics", "", "serve /metrics, /healthz and /debug/pprof over TCP at this `address`, such as 127.0.0.1:10249; without it only on the control socket")
	fs.DurationVar(&c.resync, "resync", 30*time.Second, "compare the kernel's rules with what they should be at least this often; 0: only when something changes")
	fs.DurationVar(&c.drain, "drain", 5*time.Second, "on SIGTERM in userspace mode, let connections go on this long")
	fs.TextVar(&c.level, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn, error")
	fs.BoolVar(&c.dryRun, "dry-run", false, "print the portals and the rules they need (nftables: the table; userspace: what differs), change nothing, exit")
	fs.BoolVar(&c.once, "once", false, "program the kernel once and exit (nftables mode)")
	fs.BoolVar(&c.cleanup, "cleanup", false, "remove everything portald ever put into the kernel, in both modes, and exit")
	fs.BoolVar(&c.version, "version", false, "print the version and exit")
	return fs
}

// parse reads the command line. It reports all mistakes at once, as a usageError, or flag.ErrHelp after printing help.
func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	var t texts
	fs := flags(&c, &t)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		help(fs, stderr)
		return config{}, err
	} else if err != nil {
		return config{}, usageError{err}
	}
	if c.version {
		return c, nil
	}
	var given bool
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if fs.NArg() > 0 {
		bad("%q is not a command; there is only: portald status", fs.Arg(0))
	}
	c.kubernetes = c.kubernetes || c.api.Kubeconfig != "" || c.api.Server != ""
	switch {
	case c.services == "" && !c.kubernetes && !c.cleanup:
		bad("--services: say where the manifests are, as in --services=/etc/l3edge/services, or --kubernetes")
	case c.services != "" && c.kubernetes:
		bad("--services and --kubernetes exclude each other")
	case c.kubernetes && (c.dryRun || c.once):
		bad("--dry-run and --once need --services")
	}
	fs.Visit(func(f *flag.Flag) { given = given || f.Name == "portal-net" })
	c.followNets = c.kubernetes && !given
	if c.mode != portals.NFTables && c.mode != portals.Userspace {
		bad("--mode: %q is neither nftables nor userspace", c.mode)
	}
	if c.once && c.mode == portals.Userspace {
		bad("--once: a userspace portal lives only as long as portald; use --mode=nftables")
	}
	if n := count(c.dryRun, c.once, c.cleanup); n > 1 {
		bad("--dry-run, --once and --cleanup exclude each other")
	}
	if _, _, err := net.SplitHostPort(c.metrics); c.metrics != "" && err != nil {
		bad("--metrics: %q is not host:port", c.metrics)
	}
	if c.resync < 0 {
		bad("--resync: %s is negative", c.resync)
	}
	if c.drain < 0 {
		bad("--drain: %s is negative", c.drain)
	}
	c.nets = parseNets(t.nets, bad)
	c.nodePorts = parseNodePorts(t.nodePorts, bad)
	if len(errs) > 0 {
		return config{}, usageError{errors.Join(errs...)}
	}
	return c, nil
}

func parseNets(text string, bad func(string, ...any)) []netip.Prefix {
	var nets []netip.Prefix
	for one := range strings.SplitSeq(text, ",") {
		p, err := subnet.Parse(strings.TrimSpace(one))
		if err != nil {
			bad("--portal-net: %w", err)
			continue
		}
		if i := slices.IndexFunc(nets, p.Overlaps); i >= 0 {
			bad("--portal-net: %s overlaps %s", p, nets[i])
			continue
		}
		nets = append(nets, p)
	}
	return nets
}

// parseNodePorts reads prefixes in which addresses may lie together; a node's are counted once.
func parseNodePorts(text string, bad func(string, ...any)) (out []netip.Prefix) {
	if text == "primary" {
		return nil
	}
	for one := range strings.SplitSeq(text, ",") {
		p, err := subnet.Parse(strings.TrimSpace(one))
		switch {
		case err != nil:
			bad("--nodeport-addresses: %w", err)
		case p.Addr().IsLoopback():
			bad("--nodeport-addresses: %s is loopback: that is --localhost-nodeports", p)
		default:
			out = append(out, p)
		}
	}
	return out
}

func count(flags ...bool) (n int) {
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n
}

func help(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, "portald answers service addresses on this node.\n\n"+ //nolint:errcheck // help to a closed terminal
		"  portald --services=DIR [flags]\n  portald --kubernetes [flags]\n  portald status [--json] [--socket=PATH]\n\nFlags:\n")
	fs.VisitAll(func(f *flag.Flag) {
		kind, usage := flag.UnquoteUsage(f)
		line := "  --" + f.Name
		if kind != "" {
			line += "=" + strings.ToUpper(kind)
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "%s\n        %s\n", line, usage) //nolint:errcheck // as above
	})
}
