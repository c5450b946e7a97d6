// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/core/mark"
	"github.com/l3edge/l3edge/pkg/edge/install"
)

func newInstall() *cobra.Command {
	var p install.Plan
	cmd := &cobra.Command{
		Use: "install", Short: "Put the plugins and their configuration where the container runtime looks for them", Args: cobra.NoArgs,
		Example: "  l3ctl install --conflist=/etc/l3edge/10-l3edge.conflist",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.From == "" {
				exe, err := os.Executable()
				if err != nil {
					return fmt.Errorf("find the plugins: %w", err)
				}
				p.From = filepath.Dir(exe)
			}
			wrote, err := p.Run()
			for _, path := range wrote {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), "wrote", path); err != nil {
					return err
				}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.From, "from", "", "`directory` of the plugins (default: where l3ctl lies)")
	f.StringVar(&p.BinDir, "bin-dir", mark.CNIBinDir, "`directory` in which the runtime looks for plugins")
	f.StringVar(&p.Conflist, "conflist", "", "configuration `file` to install, last of all; without it the plugins alone are installed")
	f.StringVar(&p.ConfDir, "conf-dir", mark.CNIConfDir, "`directory` in which the runtime looks for its configuration")
	f.StringVar(&p.APIServerFile, "api-server-file", "", "`file` to write the API server's URL to, for --api-server of routed and portald")
	f.StringVar(&p.APIServer, "api-server", "", "`URL` of the API server (default: as --kubelet-conf has it)")
	f.StringVar(&p.Kubelet, "kubelet-conf", "/etc/kubernetes/kubelet.conf", "the kubelet's kubeconfig `file`")
	return cmd
}
