// SPDX-License-Identifier: Apache-2.0

// Package look is what l3ctl's commands share: it sees one host as it is (kernel, daemons' sockets, files) as a view.Host,
// or several, and prints what was made of that.
package look

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/core/diagnose"
)

// Unwell ends l3ctl with that status and without a word: the output has said what is wrong.
type Unwell int

func (u Unwell) Error() string { return fmt.Sprintf("exit status %d", int(u)) }

// ExitCode is the status for the shell.
func (u Unwell) ExitCode() int { return int(u) }

// Unhealthy is the status of a command that could look and found something wrong; 1 means that it could not look.
const Unhealthy = Unwell(2)

// Format is the flag -o.
type Format string

// String is the format's name.
func (f *Format) String() string { return string(*f) }

// Type is what help shows.
func (f *Format) Type() string { return "text|json" }

// Set reads it.
func (f *Format) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("%q is neither text nor json", s)
	}
	*f = Format(s)
	return nil
}

// Output gives a command the flag -o.
func Output(cmd *cobra.Command) *Format {
	f := Format("text")
	cmd.Flags().VarP(&f, "output", "o", "how to print")
	Choose(cmd, "output", "text", "json")
	return &f
}

// Print writes v as JSON, or lets text write it for a person.
func (f *Format) Print(cmd *cobra.Command, v any, text func(io.Writer)) error {
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

// Say prints a line; errors come with the Flush of Print.
func Say(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...) //nolint:errcheck // the Flush tells
}

// Findings prints what is wrong, with cause and fix.
func Findings(w io.Writer, fs []diagnose.Finding) {
	for _, f := range fs {
		mark := "BROKEN "
		if f.Warning {
			mark = "warning"
		}
		Say(w, "%s  %s: %s", mark, f.Part, f.Problem)
		if f.Cause != "" {
			Say(w, "         cause: %s", f.Cause)
		}
		Say(w, "         fix:   %s", f.Fix)
	}
}
