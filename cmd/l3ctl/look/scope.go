// SPDX-License-Identifier: Apache-2.0

package look

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/lab"
)

// Scope says which hosts a command looks at: this one, those of files, all of a lab, or every node of a cluster.
type Scope struct {
	From []string
	Lab  string
	All  bool
}

// Hosts gives a command the flags of a Scope.
func Hosts(cmd *cobra.Command) *Scope {
	s := &Scope{}
	cmd.Flags().StringArrayVar(&s.From, "from", nil, "look at the host in this `file` of l3ctl observe instead; repeatable")
	cmd.Flags().StringVar(&s.Lab, "lab", "", "look at all hosts of the lab with this `name`")
	cmd.Flags().Lookup("lab").NoOptDefVal = "lab"
	cmd.Flags().BoolVar(&s.All, "all", false, "look at every node of the Kubernetes cluster that kubectl is set up for")
	cmd.MarkFlagsMutuallyExclusive("from", "lab", "all")
	return s
}

// Look returns the hosts, the one that the command is for first.
func (s *Scope) Look(cmd *cobra.Command) ([]view.Host, error) {
	if s.Lab != "" {
		return s.labHosts(cmd)
	}
	if s.All {
		return cluster(cmd.Context())
	}
	if len(s.From) == 0 {
		return []view.Host{Host(cmd.Context())}, nil
	}
	var out []view.Host
	for _, file := range s.From {
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
func (s *Scope) labHosts(cmd *cobra.Command) ([]view.Host, error) {
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
			return nil, fmt.Errorf("lab %s: %s: %w", s.Lab, strings.TrimPrefix(strings.TrimSpace(stderr.String()), "l3ctl: "), err)
		}
		return out, nil
	}
	text, err := run("lab", "exec", "--name="+s.Lab, ".", "--", "cat", lab.StateFile)
	if err != nil {
		return nil, err
	}
	var state lab.State
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, fmt.Errorf("lab %s: %w", s.Lab, err)
	}
	here, _ := os.Hostname()
	var out []view.Host
	for _, l := range state.Hosts {
		text, err := run("lab", "exec", "--name="+s.Lab, l.Name, "--", lab.Program("l3ctl"), "observe")
		if err != nil {
			return nil, err
		}
		var h view.Host
		if err := json.Unmarshal(text, &h); err != nil {
			return nil, fmt.Errorf("lab %s: %s: %w", s.Lab, l.Name, err)
		}
		if h.Name = l.Name; l.Name == here {
			out = append([]view.Host{h}, out...)
		} else {
			out = append(out, h)
		}
	}
	return out, nil
}
