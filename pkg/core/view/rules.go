// SPDX-License-Identifier: Apache-2.0

package view

import (
	"regexp"
	"strconv"
	"strings"
)

// Rule is what the reference plugins portmap and bridge (ipMasq) have in the packet filter for one container.
type Rule struct {
	Table     string `json:"table"` // "iptables nat", "nft ip cni_hostport"
	Chain     string `json:"chain"` // of iptables the container's own, which Text leads to; of nftables the one that has the rule
	Network   string `json:"network,omitempty"`
	Container string `json:"containerID"`
	Text      string `json:"text"`             // as the program prints it
	Handle    int    `json:"handle,omitempty"` // of nftables
}

var (
	// The comments are those of the plugins: portmap's "dnat name: ...", ipMasq's "name: ...".
	ofIPTables = regexp.MustCompile(`^-A \S+ .*--comment "(?:dnat )?name: \\"([^"\\]*)\\" id: \\"([^"\\]*)\\?"?.* -j (CNI-\S+)`)
	ofNFTables = regexp.MustCompile(`^\s+(.*) comment "(?:.*, net: (\S+), if: \S+, id: )?([^", ]+)" # handle (\d+)$`)
	nftChain   = regexp.MustCompile(`^\s+chain (\S+) \{`)
)

// ParseIPTables finds the rules in what iptables-save prints of a table.
func ParseIPTables(table, text string) (out []Rule) {
	for line := range strings.Lines(text) {
		if m := ofIPTables.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			out = append(out, Rule{Table: table, Chain: m[3], Network: m[1], Container: m[2], Text: strings.TrimSpace(line)})
		}
	}
	return out
}

// ParseNFTables finds the rules in what "nft -a list table" prints of a table of the reference plugins.
func ParseNFTables(table, text string) (out []Rule) {
	chain := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if m := nftChain.FindStringSubmatch(line); m != nil {
			chain = m[1]
		}
		if m := ofNFTables.FindStringSubmatch(line); m != nil {
			handle, _ := strconv.Atoi(m[4])
			out = append(out, Rule{Table: table, Chain: chain, Network: m[2], Container: m[3], Text: m[1], Handle: handle})
		}
	}
	return out
}
