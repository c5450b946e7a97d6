// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Delegate runs another plugin (an IPAM plugin, as a rule) with the same configuration and environment, as the
// specification's section "Plugin Delegation" has it, and returns its result: nil but for ADD. command is usually the call's
// own; an ADD that has to be undone delegates DEL. Errors keep the other plugin's code.
func (c *Call) Delegate(plugin, command string) (*Result, error) {
	path, err := c.find(plugin)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command) // the last one counts
	cmd.Stdin = bytes.NewReader(c.Config)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		var theirs struct {
			Code         Code
			Msg, Details string
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && json.Unmarshal(out, &theirs) == nil && theirs.Msg != "" {
			return nil, &Error{Code: theirs.Code, Msg: plugin + ": " + theirs.Msg, Details: theirs.Details}
		}
		return nil, Errorf(CodeInternal, "run %s: %w", path, err)
	}
	if command != "ADD" {
		return nil, nil
	}
	r, err := ParseResult(bytes.TrimSpace(out))
	if err != nil {
		return nil, Errorf(CodeDecode, "%s: %w", plugin, err)
	}
	return r, nil
}

// find looks a plugin up in CNI_PATH; it may not be named by a path.
func (c *Call) find(plugin string) (string, error) {
	if plugin == "" || strings.ContainsRune(plugin, '/') || plugin == ".." {
		return "", Errorf(CodeInvalidConfig, "%q is not the name of a plugin", plugin)
	}
	for _, dir := range c.Path {
		p := filepath.Join(dir, plugin)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", Errorf(CodeInvalidConfig, "plugin %s is not in CNI_PATH (%s)", plugin, strings.Join(c.Path, ":"))
}
