// SPDX-License-Identifier: Apache-2.0

// Package mend holds the commands of l3ctl that put things right: doctor, ipam, the bundle for a bug report, install and cleanup.
package mend

import "github.com/spf13/cobra"

// Commands are the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{newDoctor(), newIPAM(), newBundle(), newInstall(), newCleanup()}
}
