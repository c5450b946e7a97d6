// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestReferenceIsTrue holds every command's help, as it prints it, against the reference page.
func TestReferenceIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/l3ctl.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range helpful(newRoot(nil)) {
		root := newRoot(nil)
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(append(args, "--help"))
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		if help := "```\n$ l3ctl " + strings.Join(append(args, "--help"), " ") + "\n" + out.String() + "```\n"; !strings.Contains(string(page), help) {
			t.Errorf("docs/reference/l3ctl.md lacks or misquotes:\n%s", help)
		}
	}
}

// helpful lists the commands that a person sees, as arguments.
func helpful(cmd *cobra.Command) [][]string {
	var out [][]string
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
			continue
		}
		if c.Runnable() {
			out = append(out, strings.Fields(c.CommandPath())[1:])
		}
		out = append(out, helpful(c)...)
	}
	return out
}

func TestMistakes(t *testing.T) {
	for _, row := range []struct {
		mistake string
		args    []string
		want    string
	}{
		{"a lab without a proper name", []string{"lab", "down", "--name=../x"}, `--name: "../x" is not a name`},
		{"an unknown flag", []string{"lab", "up", "--mls-kind=frr"}, "unknown flag: --mls-kind"},
		{"a command for no host", []string{"lab", "exec"}, "requires at least 2 arg(s)"},
		{"ports that are none", []string{"lab", "pod", "add", "x", "--publish=80", "--publish=0:1"}, `publish[1]: "0:1" is not HOSTPORT:CONTAINERPORT`},
	} {
		t.Run(row.mistake, func(t *testing.T) {
			root := newRoot(nil)
			root.SetArgs(row.args)
			if err := root.Execute(); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
