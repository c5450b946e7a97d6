// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/verbs/look"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/lab"
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

// scope says which hosts a command looks at: this one, those of files, or all of a lab.
type scope struct {
	from []string
	lab  string
}

// hosts gives a command the flags of a scope.
func hosts(cmd *cobra.Command) *scope {
	s := &scope{}
	cmd.Flags().StringArrayVar(&s.from, "from", nil, "look at the host in this `file` of l3ctl observe instead; repeatable")
	cmd.Flags().StringVar(&s.lab, "lab", "", "look at all hosts of the lab with this `name`")
	cmd.Flags().Lookup("lab").NoOptDefVal = "lab"
	return s
}

// look returns the hosts, the one that the command is for first.
func (s *scope) look(cmd *cobra.Command) ([]view.Host, error) {
	if s.lab != "" {
		return s.labHosts(cmd)
	}
	if len(s.from) == 0 {
		return []view.Host{look.Host(cmd.Context())}, nil
	}
	var out []view.Host
	for _, file := range s.from {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--from: %w", err)
		}
		var h view.Host
		if err := json.Unmarshal(text, &h); err != nil {
			return nil, fmt.Errorf("--from: %s: %w", file, err)
		}
		out = append(out, h)
	}
	return out, nil
}

// labHosts has l3ctl look at every host of the lab. On one of them, that one comes first.
func (s *scope) labHosts(cmd *cobra.Command) ([]view.Host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	run := func(args ...string) ([]byte, error) {
		c := exec.CommandContext(cmd.Context(), self, args...)
		var stderr strings.Builder
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("lab %s: %s: %w", s.lab, strings.TrimPrefix(strings.TrimSpace(stderr.String()), "l3ctl: "), err)
		}
		return out, nil
	}
	text, err := run("lab", "exec", "--name="+s.lab, ".", "--", "cat", lab.StateFile)
	if err != nil {
		return nil, err
	}
	var state lab.State
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, fmt.Errorf("lab %s: %w", s.lab, err)
	}
	here, _ := os.Hostname()
	var out []view.Host
	for _, l := range state.Hosts {
		text, err := run("lab", "exec", "--name="+s.lab, l.Name, "--", lab.Program("l3ctl"), "observe")
		if err != nil {
			return nil, err
		}
		var h view.Host
		if err := json.Unmarshal(text, &h); err != nil {
			return nil, fmt.Errorf("lab %s: %s: %w", s.lab, l.Name, err)
		}
		if h.Name = l.Name; l.Name == here {
			out = append([]view.Host{h}, out...)
		} else {
			out = append(out, h)
		}
	}
	return out, nil
}
