// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"os"
	"strings"
)

// ReadResolvConf reads a file in the form of resolv.conf(5), which host-local's key resolvConf names.
func ReadResolvConf(path string) (DNS, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return DNS{}, err
	}
	var d DNS
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			d.Nameservers = append(d.Nameservers, f[1])
		case "domain":
			d.Domain = f[1]
		case "search":
			d.Search = append(d.Search, f[1:]...)
		case "options":
			d.Options = append(d.Options, f[1:]...)
		}
	}
	return d, nil
}
