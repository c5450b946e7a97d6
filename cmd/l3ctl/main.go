// SPDX-License-Identifier: Apache-2.0

// Command l3ctl is the operator's and the learner's tool for l3edge: it shows a node, explains it, mends it, and runs the lab.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look/mend"
	"github.com/l3edge/l3edge/cmd/l3ctl/look/see"
	"github.com/l3edge/l3edge/cmd/l3ctl/look/watch"
	"github.com/l3edge/l3edge/pkg/core/version"
	"github.com/l3edge/l3edge/pkg/lab/nest"
)

func main() {
	inner := nest.Boot()
	err := newRoot(inner).Execute()
	if err == nil {
		return
	}
	var quiet interface{ ExitCode() int }
	if errors.As(err, &quiet) {
		os.Exit(quiet.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "l3ctl:", err)
	os.Exit(1)
}

// exitCode ends l3ctl with that status and without a word: whoever failed has said why.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// ExitCode is the status for the shell.
func (c exitCode) ExitCode() int { return int(c) }

func newRoot(inner *nest.Inner) *cobra.Command {
	root := &cobra.Command{
		Use:           "l3ctl",
		Short:         "See and try l3edge",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("l3ctl {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newLab(inner))
	root.AddCommand(see.Commands()...)
	root.AddCommand(watch.Commands()...)
	root.AddCommand(mend.Commands()...)
	return root
}
