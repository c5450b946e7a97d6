// SPDX-License-Identifier: Apache-2.0

// Package verbs are the commands of l3ctl that look at nodes: each reads views, has core judge them, and prints the result.
package verbs

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// Unwell ends l3ctl with that status and without a word: the output has said what is wrong.
type Unwell int

func (u Unwell) Error() string { return fmt.Sprintf("exit status %d", int(u)) }

// ExitCode is the status for the shell.
func (u Unwell) ExitCode() int { return int(u) }

// unhealthy is the status of a command that could look and found something wrong; 1 means that it could not look.
const unhealthy = Unwell(2)

// All are the commands.
func All() []*cobra.Command {
	return []*cobra.Command{newStatus(), newMap(), newIPAM(), newPlan(), newMLSConfig(), newMLSVerify(), newWhois(), newTrace(), newCapture(), newDoctor(), newBundle(), newObserve()}
}

// format is the flag -o.
type format string

func (f *format) String() string { return string(*f) }

func (f *format) Type() string { return "text|json" }

func (f *format) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("%q is neither text nor json", s)
	}
	*f = format(s)
	return nil
}

// output gives a command the flag -o.
func output(cmd *cobra.Command) *format {
	f := format("text")
	cmd.Flags().VarP(&f, "output", "o", "how to print")
	return &f
}

// print writes v as JSON, or lets text write it for a person.
func (f *format) print(cmd *cobra.Command, v any, text func(io.Writer)) error {
	w := cmd.OutOrStdout()
	if *f == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	text(t)
	return t.Flush()
}

// say prints a line; errors come with the Flush of print.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...) //nolint:errcheck // the Flush tells
}
