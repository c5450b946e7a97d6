// SPDX-License-Identifier: Apache-2.0

// Package diagnose says what is wrong with a host, from a view of it: each finding has a cause, a fix, and, where it is
// ours to mend, a repair. It looks at nothing itself.
package diagnose

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/core/ipam"
	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Part    string  `json:"part"`    // "routed", "pod default/web", ...
	Problem string  `json:"problem"` // what is wrong, as seen
	Cause   string  `json:"cause,omitempty"`
	Fix     string  `json:"fix"`               // the next thing to do
	Warning bool    `json:"warning,omitempty"` // nothing is broken yet
	Repair  *Repair `json:"repair,omitempty"`  // what doctor --repair does about it
}

// String is the finding for a log.
func (f Finding) String() string { return f.Part + ": " + f.Problem }

// Op is a kind of repair.
type Op string

// The repairs. Each puts back what our own plugin or daemon had made, and nothing else.
const (
	SetSetting   Op = "set"           // Name = Value
	JoinBridge   Op = "join bridge"   // Link becomes a port of Bridge, as Port says, and up
	LinkUp       Op = "bring up"      // Link; in the pod's namespace if Netns
	AddAddress   Op = "add address"   // Prefix on Link; in the pod's namespace if Netns
	AddRoute     Op = "add route"     // Prefix via Via on Link; in the pod's namespace if Netns, else as routed would
	ReleaseLease Op = "release lease" // Lease
	RedoPlugin   Op = "ADD once more" // Plugin of the attachment Container, IfName
	BindPort     Op = "bind"          // Link to the addresses of the attachment Container, IfName, as its network says
)

// Repair is one repair.
type Repair struct {
	Op        Op           `json:"op"`
	Name      string       `json:"name,omitempty"`
	Value     string       `json:"value,omitempty"`
	Link      string       `json:"link,omitempty"`
	Bridge    string       `json:"bridge,omitempty"`
	Port      view.Port    `json:"port,omitzero"`
	Netns     string       `json:"netns,omitempty"`
	Prefix    netip.Prefix `json:"prefix,omitzero"`
	Via       []netip.Addr `json:"via,omitempty"`
	Lease     *view.Lease  `json:"lease,omitempty"`
	Container string       `json:"containerID,omitempty"`
	IfName    string       `json:"ifname,omitempty"`
	Plugin    string       `json:"plugin,omitempty"`
}

// Healthy reports that nothing is broken.
func Healthy(fs []Finding) bool {
	return !slices.ContainsFunc(fs, func(f Finding) bool { return !f.Warning })
}

// Host names everything that is wrong with the host, the most general first. A host without any part of ours is not
// expected to have one.
func Host(h view.Host) []Finding {
	var out []Finding
	if h.Lost != "" {
		return []Finding{{Part: "node", Problem: "it does not answer: " + h.Lost, Cause: "it is down or cut off, or our pod does not run on it", Fix: "run l3ctl status on the node itself"}}
	}
	if !Ours(h) {
		return []Finding{{Part: "host", Problem: "nothing of l3edge is on this host", Fix: "install it (docs/install.md), or run l3ctl on a node"}}
	}
	for _, p := range h.Problems {
		out = append(out, Finding{Part: "l3ctl", Problem: p, Fix: "run l3ctl as root of the node's own namespaces", Warning: true})
	}
	out = append(out, routed(h)...)
	out = append(out, portald(h)...)
	out = append(out, network(h)...)
	out = append(out, settings(h)...)
	for _, p := range h.Pods {
		if p.Alive {
			out = append(out, Pod(h, p)...)
		}
	}
	out = append(out, leases(h)...)
	out = append(out, others(h)...)
	return append(out, versions(h)...)
}

// Ours reports that something of l3edge is, or was, on the host.
func Ours(h view.Host) bool {
	return h.Lost != "" || h.Node != nil || len(h.Networks) > 0 || h.Routed.Problem == "" || h.Portald.Problem == ""
}

// RunsPods reports that the host is a node, and not a switch with routed on it.
func RunsPods(h view.Host) bool { return len(h.Networks) > 0 || len(h.PodSubnets()) > 0 }

func routed(h view.Host) []Finding {
	r := h.Routed
	bad := func(problem, cause, fix string) Finding {
		return Finding{Part: "routed", Problem: problem, Cause: cause, Fix: fix}
	}
	switch {
	case r.Problem != "":
		return []Finding{bad(r.Problem, "nobody tells the switch where this node's pods are, and this node learns nothing new", "systemctl start routed; journalctl -u routed says why it ended")}
	case r.Waiting != "":
		return []Finding{bad("waits: "+r.Waiting, "", "give it what it waits for; journalctl -u routed")}
	}
	var out []Finding
	if r.Config != "" {
		out = append(out, bad("the newest configuration is not in force: "+r.Config, "the old one is", "mend the file, and check it: routed --check --conf=FILE"))
	}
	out = append(out, sessions(r)...)
	for _, a := range r.Held {
		out = append(out, bad(fmt.Sprintf("%s (%s) is not announced", a.Prefix, a.Why), a.Lacks, "see to what it lacks; routed announces it by itself then"))
	}
	return append(out, missingRoutes(h)...)
}

func sessions(r view.Routed) []Finding {
	var out []Finding
	for _, s := range r.Sessions {
		if s.Up() {
			continue
		}
		f := Finding{
			Part: "routed", Problem: fmt.Sprintf("the session with %s is %s", s.Peer, s.State), Cause: s.Problem, Warning: s.Dynamic,
			Fix: "see that the switch answers (ping " + s.Peer + ") and expects this node: l3ctl mls-config prints its side",
		}
		out = append(out, f)
	}
	if len(r.Sessions) == 0 {
		out = append(out, Finding{Part: "routed", Problem: "it has no peer", Cause: "it was given none, and nobody has connected", Fix: "routed --peer=SWITCH, or listenRanges in its configuration", Warning: true})
	}
	return out
}

// missingRoutes compares what routed believes to be in the kernel with the kernel.
func missingRoutes(h view.Host) []Finding {
	var out []Finding
	for _, r := range h.Routed.Routes {
		if r.Failed {
			out = append(out, Finding{Part: "routed", Problem: fmt.Sprintf("the route to %s is not in the kernel", r.Prefix), Cause: "the kernel refused it", Fix: "journalctl -u routed says why"})
			continue
		}
		there := slices.ContainsFunc(h.Routes, func(k view.Route) bool {
			return k.Dst == r.Prefix && k.Protocol == mark.RouteRouted && (len(r.Via) == 0) == (k.Type == "unreachable")
		})
		if !there && !r.Stale {
			f := Finding{
				Part: "routed", Problem: fmt.Sprintf("the route to %s has gone from the kernel", r.Prefix), Cause: "somebody deleted it (ip route flush, systemd-networkd)",
				Fix: "routed puts it back within a minute",
			}
			if len(r.Via) > 0 {
				f.Repair = &Repair{Op: AddRoute, Prefix: r.Prefix, Via: r.Via}
			}
			out = append(out, f)
		}
	}
	return out
}

func portald(h view.Host) []Finding {
	p := h.Portald
	bad := func(problem, cause, fix string) Finding {
		return Finding{Part: "portald", Problem: problem, Cause: cause, Fix: fix}
	}
	if !RunsPods(h) {
		return nil
	}
	if p.Problem != "" {
		f := bad(p.Problem, "services stay as they were last programmed; changes are not followed", "systemctl start portald; journalctl -u portald says why it ended")
		f.Warning = slices.Contains(h.Tables, "ip "+mark.TableServices)
		return []Finding{f}
	}
	var out []Finding
	if !p.Synced {
		out = append(out, bad("what the manifests say is not in force", p.LastError, "journalctl -u portald"))
	}
	for _, x := range p.Problems {
		out = append(out, Finding{Part: "portald", Problem: x, Fix: "mend that service", Warning: true})
	}
	for _, x := range p.Portals {
		if len(x.Endpoints) == 0 {
			out = append(out, Finding{Part: "portald", Problem: fmt.Sprintf("%s has no endpoint: connections are refused", x), Cause: "no pod of the service is ready", Fix: "see its pods", Warning: true})
		}
	}
	return append(out, rules(h)...)
}

// rules says whether what answers portals is in the kernel.
func rules(h view.Host) []Finding {
	const back = "portald puts them back within its --resync (30s); if it does not: systemctl restart portald"
	gone := func(what string) []Finding {
		return []Finding{{Part: "portald", Problem: what, Cause: "somebody flushed them (nft flush ruleset, iptables -F, a firewall that reloads)", Fix: back}}
	}
	if len(h.Portald.Portals) == 0 {
		return nil
	}
	switch h.Portald.Mode {
	case "nftables":
		if !slices.Contains(h.Tables, "ip "+mark.TableServices) {
			return gone("the nftables table ip " + mark.TableServices + " has gone: no service is answered")
		}
	case "userspace":
		for _, chain := range []string{mark.ChainPortalsContainer, mark.ChainPortalsHost} {
			i := slices.IndexFunc(h.Chains, func(s string) bool { return strings.HasPrefix(s, chain+": ") })
			if i < 0 {
				return gone("the iptables chain " + chain + " has gone: no service is answered")
			}
			if strings.Contains(h.Chains[i], "nothing leads to it") || strings.HasPrefix(h.Chains[i], chain+": 0 rules") {
				return gone("iptables: " + h.Chains[i])
			}
		}
	}
	return nil
}

func network(h view.Host) []Finding {
	if !RunsPods(h) {
		return nil
	}
	var out []Finding
	if len(h.Networks) == 0 && h.Partial == "" {
		out = append(out, Finding{
			Part: "cni", Problem: "no configuration list in " + mark.CNIConfDir + " names bridge-l3", Cause: "new pods get no network of ours",
			Fix: "install conf/10-l3edge.conflist there",
		})
	}
	for _, u := range ipam.Count(h) {
		if u.Percent() >= 90 {
			out = append(out, Finding{
				Part: "cni", Problem: u.String(), Cause: "every pod holds one", Warning: u.Used < u.Size,
				Fix: "l3ctl ipam check names those that nobody uses; give the node another subnet (l3ctl plan)",
			})
		}
	}
	return out
}

// settings compares the node's kernel settings with those that its networks need.
func settings(h view.Host) []Finding {
	if !RunsPods(h) && len(h.Routed.Sessions) == 0 {
		return nil
	}
	routed, v6 := len(h.Networks) == 0, false
	for _, n := range h.Networks {
		routed = routed || n.Routed
	}
	for _, s := range h.PodSubnets() {
		v6 = v6 || s.Addr().Is6()
	}
	var out []Finding
	for _, s := range attach.NodeSettings(true, v6, routed) {
		have, known := h.Settings[s.Name]
		if have == s.Value {
			continue
		}
		f := Finding{
			Part: "kernel", Problem: s.Name + " is " + have, Cause: "somebody set it (sysctl --system, a hardening script): packets of pods are not forwarded",
			Fix: "sysctl -w " + strings.ReplaceAll(s.Name, "/", ".") + "=" + s.Value, Repair: &Repair{Op: SetSetting, Name: s.Name, Value: s.Value},
		}
		if !known {
			f.Problem, f.Cause, f.Fix, f.Repair, f.Warning = "this kernel does not have "+s.Name, s.Optional, "modprobe br_netfilter", nil, true
		} else if s.Optional != "" {
			f.Cause = "somebody set it: " + s.Optional
		}
		out = append(out, f)
	}
	return append(out, localhost(h)...)
}

// localhost names bridges over which pods reach what listens on 127.0.0.1 of the node: portal lets packets of 127.0.0.1 cross
// its bridge, and guards that with a chain which is gone. While a pod has host ports, portal's CHECK tells and its ADD mends.
func localhost(h view.Host) []Finding {
	if slices.Contains(h.Tables, "ip "+mark.TableHostPorts) || slices.ContainsFunc(h.Pods, func(p view.Pod) bool { return p.Alive && len(p.HostPorts) > 0 }) {
		return nil
	}
	var out []Finding
	for _, n := range h.Networks {
		name := view.LocalNet(n.Bridge)
		if h.Settings[name] != "1" || slices.ContainsFunc(out, func(f Finding) bool { return f.Repair.Name == name }) {
			continue
		}
		out = append(out, Finding{
			Part: "kernel", Problem: name + " is 1, and no rule guards it: pods reach what listens on 127.0.0.1 of this node",
			Cause: "nft flush ruleset took the guard of the portal plugin, or portmap of the reference plugins had set it, which has none",
			Fix:   "sysctl -w " + strings.ReplaceAll(name, "/", ".") + "=0", Repair: &Repair{Op: SetSetting, Name: name, Value: "0"},
		})
	}
	return out
}

func leases(h view.Host) []Finding {
	if h.Partial != "" {
		return nil // the pods that use them are out of sight
	}
	var out []Finding
	for _, s := range ipam.Strays(h, attach.PortName) {
		f := Finding{Part: "lease " + s.Addr.String(), Problem: s.Why, Cause: "the runtime never told the plugin that the container is gone (no DEL, no GC)", Fix: "l3ctl ipam release " + s.Addr.String()}
		switch {
		case s.Stale && s.HostLocal != "" && path.Base(path.Dir(s.HostLocal)) != s.Network:
			f.Warning, f.Fix = true, "if no other runtime has that container: "+f.Fix
			f.Cause = "host-local wrote it for network " + path.Base(path.Dir(s.HostLocal)) + ", which no list of ours names"
		case s.Stale:
			f.Warning, f.Repair = true, &Repair{Op: ReleaseLease, Lease: &s.Lease}
		case s.Container == "":
			f.Warning, f.Cause = true, ""
			f.Fix = "see that no pod has it, and remove the file"
			if s.HostLocal != "" {
				f.Fix = "see that no pod has it: l3ctl ipam release --force " + s.Addr.String()
			}
		default:
			f.Cause, f.Fix = "the lease was removed by hand, or the pod was made by another plugin", "l3ctl ipam import-host-local; else delete the pod and let it be made anew"
		}
		out = append(out, f)
	}
	return out
}

func versions(h view.Host) []Finding {
	if r, p := h.Routed.Version, h.Portald.Version; r != "" && p != "" && r != p {
		return []Finding{{Part: "versions", Problem: "routed is " + r + ", portald is " + p, Cause: "an upgrade was not finished", Fix: "restart the older one", Warning: true}}
	}
	return nil
}
