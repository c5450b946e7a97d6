// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/l3edge/l3edge/pkg/lab/place"
	"github.com/l3edge/l3edge/pkg/lab/topology"
)

// Dump writes what somebody needs who was not there: links, addresses, routes, rules, BGP state and logs of every host.
func (l *Lab) Dump(w io.Writer) {
	for _, h := range l.all() {
		fmt.Fprintf(w, "\n######## %s\n", h.Name)
		for _, command := range l.dumpCommands(h) {
			h.dumpCommand(w, h.Place, command)
		}
		for _, name := range slices.Sorted(maps.Keys(h.pods)) {
			h.dumpCommand(w, h.pods[name].Place, "ip -4 addr show dev eth0; ip route")
		}
		h.dumpLogs(w)
	}
}

// dumpCommands are shell lines: what is missing on the machine or has nothing to say is left out of the dump.
func (l *Lab) dumpCommands(h *Host) []string {
	commands := []string{"ip -br link", "ip -br -4 addr", "ip -4 route show table main; ip nexthop"}
	if h.Spec.Pods.IsValid() {
		commands = append(commands, "nft list ruleset", "iptables-save", "sysctl net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables",
			"cat /run/l3edge/node.json", "ls -R /run/l3edge/leases", "routed status", "portald status", "ls -l "+ServicesDir, "conntrack -L 2>&1 | tail -40")
	}
	if h.Name == topology.MLSName {
		switch h := l.MLS; h.Kind {
		case FRR:
			commands = append(commands, "vtysh --vty_socket "+confDir+" -c 'show bgp summary' -c 'show bgp ipv4 unicast' -c 'show ip route'")
		case BIRD:
			commands = append(commands, "birdc -s "+confDir+"/bird.ctl show protocols all", "birdc -s "+confDir+"/bird.ctl show route all")
		case Embedded:
			commands = append(commands, "routed status")
		}
	}
	return commands
}

func (h *Host) dumpCommand(w io.Writer, at *place.Place, command string) {
	out, err := at.Run("sh", "-c", command)
	if err != nil {
		out += err.Error()
	}
	if out = strings.TrimSpace(out); out != "" {
		fmt.Fprintf(w, "%s# %s\n%s\n", at.Name, command, out)
	}
}

func (h *Host) dumpLogs(w io.Writer) {
	logs, _ := filepath.Glob(filepath.Join(h.log, "*.log")) // the pattern is well-formed
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			continue
		}
		fmt.Fprintf(w, "---- %s of %s\n%s\n", filepath.Base(path), h.Name, place.LastLines(string(b), 60))
	}
}
