// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The plugin's start is on every pod's path: what would slow it down must not be linked.
func TestLinksNothingHeavy(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, heavy := range []string{"k8s.io/", "github.com/osrg/gobgp", "net/http", "github.com/google/nftables", "github.com/prometheus/"} {
			if strings.HasPrefix(dep, heavy) {
				t.Errorf("links %s", dep)
			}
		}
	}
}
