// SPDX-License-Identifier: Apache-2.0

// Package chain calls the CNI plugins of an attachment as its runtime did, from what the runtime's cache of results says.
//
// It does not use libcni: that reads a configuration directory that may have changed since, and we ask for one plugin at a
// time, so that a difference has a name.
package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/l3edge/l3edge/pkg/core/view"
)

// CacheDir is where libcni keeps results unless its caller says otherwise: containerd, CRI-O and nerdctl do not.
const CacheDir = "/var/lib/cni/results"

// Attachment is one attachment with what its plugins were told.
type Attachment struct {
	view.Pod
	config     map[string]any
	capability map[string]any
	args       string
	result     map[string]any
}

// List reads the cache. What cannot be read is in the error; the rest is returned all the same.
func List(dir string) ([]Attachment, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	var out []Attachment
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("list attachments: %w", err))
			continue
		}
		a, ok, err := parse(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		} else if ok {
			out = append(out, a)
		}
	}
	return out, errors.Join(errs...)
}

func parse(text []byte) (Attachment, bool, error) {
	pod, ok, err := view.ParseAttachment(text)
	if err != nil || !ok {
		return Attachment{}, false, err
	}
	var raw struct {
		Config     []byte         `json:"config"`
		Args       [][2]string    `json:"cniArgs"`
		Capability map[string]any `json:"capabilityArgs"`
		Result     map[string]any `json:"result"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return Attachment{}, false, err
	}
	a := Attachment{Pod: pod, capability: raw.Capability, result: raw.Result}
	if err := json.Unmarshal(raw.Config, &a.config); err != nil {
		return Attachment{}, false, fmt.Errorf("its configuration: %w", err)
	}
	var pairs []string
	for _, p := range raw.Args {
		pairs = append(pairs, p[0]+"="+p[1])
	}
	a.args = strings.Join(pairs, ";")
	return a, true, nil
}

// Failure is a plugin's refusal.
type Failure struct{ Plugin, Text string }

func (f *Failure) Error() string { return f.Plugin + ": " + f.Text }

// Check calls CHECK of every plugin, in order, and returns the first difference as a *Failure. A chain that says
// disableCheck is right without a look.
func (a Attachment) Check(ctx context.Context, path string) error {
	if off, ok := a.config["disableCheck"].(bool); ok && off {
		return nil
	}
	for _, p := range a.plugins() {
		if err := a.call(ctx, path, "CHECK", p); err != nil {
			return err
		}
	}
	return nil
}

// Redo calls ADD of the plugins of one type once more, on the result as it stands. Only plugins that take an ADD that
// was done already are fit for this: portal is.
func (a Attachment) Redo(ctx context.Context, path, typ string) error {
	for _, p := range a.plugins() {
		if p["type"] == typ {
			if err := a.call(ctx, path, "ADD", p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a Attachment) plugins() []map[string]any {
	var out []map[string]any
	list, _ := a.config["plugins"].([]any)
	for _, p := range list {
		if m, ok := p.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// Config is what the first plugin of that type was told, as JSON; nil: there is none.
func (a Attachment) Config(typ string) []byte {
	for _, p := range a.plugins() {
		if p["type"] == typ {
			if text, err := json.Marshal(a.stdin(p)); err == nil {
				return text
			}
		}
	}
	return nil
}

// stdin is a plugin's configuration as the specification has a runtime derive it (section 3).
func (a Attachment) stdin(plugin map[string]any) map[string]any {
	conf := map[string]any{}
	for k, v := range plugin {
		conf[k] = v
	}
	delete(conf, "capabilities")
	conf["name"], conf["cniVersion"], conf["prevResult"] = a.Network, a.result["cniVersion"], a.result
	wanted, _ := plugin["capabilities"].(map[string]any)
	runtime := map[string]any{}
	for key, value := range a.capability {
		if on, ok := wanted[key].(bool); ok && on {
			runtime[key] = value
		}
	}
	if len(runtime) > 0 {
		conf["runtimeConfig"] = runtime
	}
	return conf
}

func (a Attachment) call(ctx context.Context, path, command string, plugin map[string]any) error {
	typ, _ := plugin["type"].(string)
	program, err := find(path, typ)
	if err != nil {
		return err
	}
	in, err := json.Marshal(a.stdin(plugin))
	if err != nil {
		return fmt.Errorf("call %s: %w", typ, err)
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+a.Container, "CNI_NETNS="+a.Netns,
		"CNI_IFNAME="+a.IfName, "CNI_ARGS="+a.args, "CNI_PATH="+path)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err == nil {
		return nil
	}
	var said struct{ Msg, Details string }
	if json.Unmarshal(out, &said) == nil && said.Msg != "" {
		return &Failure{typ, strings.TrimSpace(said.Msg + " " + said.Details)}
	}
	return &Failure{typ, err.Error()}
}

// find looks for a plugin in the directories of CNI_PATH.
func find(path, typ string) (string, error) {
	if typ == "" || strings.Contains(typ, "/") {
		return "", fmt.Errorf("%q is not a plugin", typ)
	}
	for _, dir := range filepath.SplitList(path) {
		program := filepath.Join(dir, typ)
		if info, err := os.Stat(program); err == nil && !info.IsDir() {
			return program, nil
		}
	}
	return "", fmt.Errorf("plugin %s: not found in %s", typ, path)
}
