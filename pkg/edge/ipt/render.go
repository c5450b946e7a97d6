// SPDX-License-Identifier: Apache-2.0

// Package ipt keeps the iptables rules that lead portal traffic to the userspace proxy, in chains of our own.
//
//	PREROUTING ─▶ KUBE-PORTALS-CONTAINER    REDIRECT to the proxy port: traffic that comes in from pods
//	OUTPUT     ─▶ KUBE-PORTALS-HOST         DNAT to the node's address and the proxy port: traffic of the node itself
//
// and likewise KUBE-NODEPORT-CONTAINER and KUBE-NODEPORT-HOST for NodePorts, last and for the node's own addresses only.
package ipt

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// Rule is the arguments of one rule, as iptables-save spells them after "-A CHAIN".
type Rule []string

// String is the rule on one line, quoted as iptables-save does.
func (r Rule) String() string {
	quoted := make([]string, len(r))
	for i, arg := range r {
		quoted[i] = quote(arg)
	}
	return strings.Join(quoted, " ")
}

// Rules are the contents of our chains for one address family, in order, by the name of the chain.
type Rules map[string][]Rule

// Render turns a Table into the rules of one family, sorted by service. Portals without a proxy port have no rule.
// nodeAddr is where the node's own traffic finds the proxy; its family chooses the portals.
func Render(t portal.Table, ports map[portal.Key]uint16, nodeAddr netip.Addr) Rules {
	out := Rules{}
	for _, key := range sorted(t, nodeAddr.Is4()) {
		port, ok := ports[key]
		if !ok {
			continue
		}
		match := Rule{
			"-d", netip.PrefixFrom(key.Addr, key.Addr.BitLen()).String(), "-p", proto(key.Protocol),
			"-m", "comment", "--comment", comment(t.Portals[key].Service),
			"-m", proto(key.Protocol), "--dport", strconv.Itoa(int(key.Port)),
		}
		to := netip.AddrPortFrom(nodeAddr, port).String()
		container, host := mark.ChainPortalsContainer, mark.ChainPortalsHost
		if t.Portals[key].Kind == portal.NodePort {
			container, host = mark.ChainNodePortContainer, mark.ChainNodePortHost
		}
		out[container] = append(out[container], append(slices.Clip(match), "-j", "REDIRECT", "--to-ports", strconv.Itoa(int(port))))
		out[host] = append(out[host], append(slices.Clip(match), "-j", "DNAT", "--to-destination", to))
	}
	return out
}

func sorted(t portal.Table, v4 bool) []portal.Key {
	keys := slices.Collect(maps.Keys(t.Portals))
	keys = slices.DeleteFunc(keys, func(k portal.Key) bool { return k.Addr.Is4() != v4 })
	slices.SortFunc(keys, func(a, b portal.Key) int {
		return cmp.Or(cmp.Compare(t.Portals[a].Service.String(), t.Portals[b].Service.String()), a.Compare(b))
	})
	return keys
}

func proto(p service.Protocol) string { return strings.ToLower(p.String()) }

// comment is the service's name as the article's listing has it, "webfrontend"; outside the namespace default
// "namespace/name", and with ":port" where a Service names its ports. It is only for the reader, so whatever could upset
// iptables (it takes 255 bytes, and one bad line would stop all services) is cut off or replaced.
func comment(p service.PortName) string {
	s := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '"' && r != '\\' {
			return r
		}
		return '?'
	}, strings.TrimPrefix(p.String(), "default/"))
	return s[:min(len(s), 255)]
}

// quote wraps an argument the way libxtables does: only when it holds more than letters, digits, "_", "-" and, for our
// own kind of arguments, the signs that never need it.
func quote(arg string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:[],", r)
	}
	if arg != "" && strings.IndexFunc(arg, func(r rune) bool { return !plain(r) }) < 0 {
		return arg
	}
	return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(arg) + `"`
}

// split undoes quote for a whole line, so that rules compare equal however they were quoted.
func split(line string) Rule {
	var out Rule
	var word strings.Builder
	var in, quoted, escaped bool
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted, in = !quoted, true
		case r == ' ' && !quoted:
			if in {
				out = append(out, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}

// state is what the kernel holds of ours in one family's nat table.
type state struct {
	chains Rules          // our chains that exist
	jumps  map[string]int // by chain of ours: how often a built-in chain jumps there
}

// jump is the rule of a built-in chain that leads to a chain of ours.
type jump struct {
	from, to string
	match    Rule
	nodePort bool // only where there are NodePorts, and last: it matches broadly
}

// rule is the jump's, as iptables-save spells it.
func (j jump) rule() Rule { return append(slices.Clip(j.match), "-j", j.to) }

// toNode is how kube-proxy let NodePorts answer in 2015.
var toNode = Rule{"-m", "addrtype", "--dst-type", "LOCAL", "-m", "comment", "--comment", "handle service NodePorts; NOTE: this must be the last rule in the chain"}

var jumps = []jump{
	{from: "PREROUTING", to: mark.ChainPortalsContainer},
	{from: "OUTPUT", to: mark.ChainPortalsHost},
	{from: "PREROUTING", to: mark.ChainNodePortContainer, match: toNode, nodePort: true},
	{from: "OUTPUT", to: mark.ChainNodePortHost, match: toNode, nodePort: true},
}

// plan is what must change, as input for iptables-restore --noflush. It is empty when nothing must.
func plan(want Rules, have state) string {
	var b, chains strings.Builder
	for _, j := range jumps {
		rules, exists := have.chains[j.to]
		switch needed := !j.nodePort || len(want[j.to]) > 0; {
		case needed && !exists:
			fmt.Fprintf(&chains, ":%s - [0:0]\n", j.to)
		case !needed && exists: // it goes with the last NodePort
			b.WriteString(strings.Repeat(fmt.Sprintf("-D %s %s\n", j.from, j.rule()), have.jumps[j.to]))
			fmt.Fprintf(&b, "-F %s\n-X %s\n", j.to, j.to)
			continue
		case !needed:
			continue
		}
		change(&b, j.to, want[j.to], rules)
	}
	for _, j := range jumps {
		switch n := have.jumps[j.to]; {
		case j.nodePort && len(want[j.to]) == 0:
		case n == 0 && j.nodePort:
			fmt.Fprintf(&b, "-A %s %s\n", j.from, j.rule())
		case n == 0:
			fmt.Fprintf(&b, "-I %s 1 %s\n", j.from, j.rule())
		case n > 1:
			b.WriteString(strings.Repeat(fmt.Sprintf("-D %s %s\n", j.from, j.rule()), n-1))
		}
	}
	if chains.Len()+b.Len() == 0 {
		return ""
	}
	return "*nat\n" + chains.String() + b.String() + "COMMIT\n"
}

// change removes what is too much and appends what is missing. The order inside a chain does not matter: each rule has
// its own destination. A rule of the same destination and another port is removed in the same commit.
func change(b *strings.Builder, chain string, want, have []Rule) {
	missing := make(map[string]bool, len(want))
	for _, r := range want {
		missing[r.String()] = true
	}
	for _, r := range have {
		if s := r.String(); !missing[s] {
			fmt.Fprintf(b, "-D %s %s\n", chain, s)
		} else {
			delete(missing, s) // a second copy of it is too much
		}
	}
	for _, r := range want {
		if s := r.String(); missing[s] {
			fmt.Fprintf(b, "-A %s %s\n", chain, s)
		}
	}
}
