// SPDX-License-Identifier: Apache-2.0

// Package see holds the commands of l3ctl that show: status, map, whois, observe, plan, and the switch's side.
package see

import "github.com/spf13/cobra"

// Commands are the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{newStatus(), newMap(), newPlan(), newMLSConfig(), newMLSVerify(), newWhois(), newObserve()}
}
