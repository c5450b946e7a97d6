// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "quote the help of every command anew")

// TestReferenceIsTrue holds every command's help, as it prints it, against the reference page.
func TestReferenceIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/l3ctl.md")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		page = quote(t, page)
		if err := os.WriteFile("../../docs/reference/l3ctl.md", page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range helpful(newRoot(nil)) {
		if help := help(t, args); !strings.Contains(string(page), help) {
			t.Errorf("docs/reference/l3ctl.md lacks or misquotes (go test ./cmd/l3ctl -update quotes anew what is there):\n%s", help)
		}
	}
}

// help is a command's help as the page quotes it.
func help(t *testing.T, args []string) string {
	t.Helper()
	root := newRoot(nil)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(append(args, "--help"))
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	return "```\n$ l3ctl " + strings.Join(append(args, "--help"), " ") + "\n" + out.String() + "```\n"
}

// quote writes every help that the page quotes as it is now; one of a new command goes to the end.
func quote(t *testing.T, page []byte) []byte {
	t.Helper()
	text := string(page)
	for _, args := range helpful(newRoot(nil)) {
		h := help(t, args)
		first, _, _ := strings.Cut(strings.TrimPrefix(h, "```\n"), "\n")
		before, rest, ok := strings.Cut(text, "```\n"+first+"\n")
		if !ok {
			text += "\n" + h
			continue
		}
		_, after, _ := strings.Cut(rest, "```\n")
		text = before + h + after
	}
	return []byte(text)
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
		{"a plan around no prefix", []string{"plan", "--avoid=10.0.0.1/8"}, "--avoid: 10.0.0.1/8 has host bits set: did you mean 10.0.0.0/8?"},
		{"an impossible plan", []string{"plan", "--nodes=0"}, "nodes: 0 is not between 1 and 1048576"},
		{"a switch without a segment", []string{"mls-config", "--cluster=10.10.0.0/16"}, "segment: missing"},
		{"a vendor that there is none", []string{"mls-config", "--vendor=acme", "--cluster=10.10.0.0/16", "--segment=10.20.30.1/24"}, `vendor: "acme" is none of bird, eos`},
		{"a static route that is none", []string{"mls-config", "--static=x"}, `--static: "x" is not PREFIX=NODE`},
		{"whois nobody", []string{"whois", "web"}, `"web" is neither an address nor ADDRESS:PORT`},
		{"a format that there is none", []string{"status", "-o", "yaml"}, `"yaml" is neither text nor json`},
		{"two formats at once", []string{"map", "--dot", "--mermaid"}, "none of the others can be"},
		{"a point on the moon", []string{"capture", "web", "--point=moon"}, `--point[0]: "moon" is none of pod, veth, bridge, uplink`},
		{"a probe of the past", []string{"trace", "a", "b", "--probe", "--from=x"}, "--probe: makes a connection now"},
		{"two places to look at", []string{"status", "--all", "--lab"}, "none of the others can be"},
		{"a probe of a whole cluster", []string{"trace", "a", "b", "--probe", "--all"}, "--probe: makes a connection on this host"},
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

// The shell is offered what a word may be, by the command that it asks for that.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"mls-config --vendor j": "junos\n", "status -o j": "json\n", "lab up --mls b": "bird\n", "lab run dr": "drain\n", "capture --point v": "veth\n", "ipam im": "import-host-local",
	} {
		root := newRoot(nil)
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(io.Discard)
		root.SetArgs(append([]string{"__complete"}, strings.Fields(line)...))
		if err := root.Execute(); err != nil || !strings.Contains("\n"+out.String(), "\n"+want) {
			t.Errorf("%s: %v, %q", line, err, out.String())
		}
	}
}
