// SPDX-License-Identifier: Apache-2.0

package see

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/picture"
)

func newMap() *cobra.Command {
	var svg string
	var dot, mermaid bool
	cmd := &cobra.Command{
		Use: "map", Short: "Draw the network as it is: switch, segments, nodes, bridges, pods, services", Args: cobra.NoArgs,
		Example: "  l3ctl map --lab\n  l3ctl map --from node1.json --from node2.json --from switch.json --svg=network.svg",
	}
	cmd.Flags().StringVar(&svg, "svg", "", "write the picture into this `file`")
	cmd.Flags().BoolVar(&dot, "dot", false, "print it in Graphviz's language")
	cmd.Flags().BoolVar(&mermaid, "mermaid", false, "print it for Mermaid")
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.MarkFlagsMutuallyExclusive("svg", "dot", "mermaid", "output")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		p := picture.Of(hs)
		switch {
		case svg != "":
			if err := os.WriteFile(svg, []byte(p.SVG()), 0o644); err != nil {
				return fmt.Errorf("--svg: %w", err)
			}
			return nil
		case dot:
			_, err = io.WriteString(cmd.OutOrStdout(), p.DOT())
			return err
		case mermaid:
			_, err = io.WriteString(cmd.OutOrStdout(), p.Mermaid())
			return err
		}
		return format.Print(cmd, p, func(w io.Writer) { _, _ = io.WriteString(w, p.Text()) })
	}
	return cmd
}
