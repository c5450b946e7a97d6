// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"os"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab"
)

// install brings l3edge to every node.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	conf := c.grant(t)
	conflist, err := os.ReadFile(manifests("../10-l3edge.conflist"))
	must(t, err)
	for _, n := range c.nodes {
		subnet := ""
		within(t, patience, n.Name+" has a subnet", func() error {
			o, err := n.object()
			if err == nil && o.Spec.PodCIDR == "" {
				err = errors.New("no podCIDR")
			}
			if err == nil {
				subnet = o.Spec.PodCIDR
			}
			return err
		})
		for _, p := range []string{"bridge-l3", "portal"} {
			b, err := os.ReadFile(lab.Program(p))
			if err != nil {
				b, err = os.ReadFile(binDir() + "/" + p)
			}
			must(t, err)
			must(t, os.WriteFile(n.File("/opt/cni/bin/"+p), b, 0o755))
		}
		n.Routed, err = n.Host.Start("routed", lab.Program("routed"), "--peer=mls", "--node="+n.Name, "--pod-subnet="+subnet, "--on-stop=keep")
		must(t, err)
		n.Portald, err = n.Host.Start("portald", lab.Program("portald"), "--kubeconfig="+conf)
		must(t, err)
		must(t, n.WriteFile("/etc/cni/net.d/10-l3edge.conflist", string(conflist)))
	}
}
