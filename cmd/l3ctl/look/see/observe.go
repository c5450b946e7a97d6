// SPDX-License-Identifier: Apache-2.0

package see

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
)

func newObserve() *cobra.Command {
	return &cobra.Command{
		Use: "observe", Short: "Print all that l3ctl sees of this host as JSON, for --from of other commands", Args: cobra.NoArgs,
		Example: "  ssh node7 l3ctl observe > node7.json\n  l3ctl map --from node7.json --from node8.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(look.Host(cmd.Context()))
		},
	}
}
