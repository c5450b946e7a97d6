// SPDX-License-Identifier: Apache-2.0

// Package watch holds the commands of l3ctl that look at packets: trace with its probe, and capture.
package watch

import "github.com/spf13/cobra"

// Commands are the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{newTrace(), newCapture()}
}
