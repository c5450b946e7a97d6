// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// all is l3ctl for whoever has kubectl set up, on no node: it sees every node, and the pods' use of its subnet.
func all(t *testing.T, c *cluster) {
	within(t, patience, "l3ctl status --all", func() error {
		cmd := exec.Command(filepath.Join(binDir(), "l3ctl"), "status", "--all")
		cmd.Env = append(os.Environ(), "KUBECONFIG="+c.path("admin.conf"), "PATH="+filepath.Dir(program("kubectl"))+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		for _, n := range c.nodes {
			want := regexp.MustCompile(`(?m)^` + n.Host.Name + ` +10\.10\.\d+\.0/24 fd10:10:\S*/64 +[1-9]\d*/253 +1/1 up +\d+ +\d+ nftables +(well|.* has no endpoint.*)$`)
			if !want.Match(out) {
				return fmt.Errorf("%s is not\n%s\nin\n%s", n.Host.Name, want, out)
			}
		}
		return nil
	})
}
