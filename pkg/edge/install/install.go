// SPDX-License-Identifier: Apache-2.0

// Package install puts the plugins, their configuration and the address of the API server onto a node, and takes files of
// ours off it again.
package install

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// Plugins are the programs that a runtime calls.
var Plugins = []string{"bridge-l3", "portal"}

// ConflistName is what our configuration is called in the runtime's directory: the first of the alphabet is in force.
const ConflistName = "10-l3edge.conflist"

// Plan is what is to be put where. What is empty is not installed.
type Plan struct {
	From   string // directory that holds the plugins
	BinDir string // where the runtime looks for them

	Conflist string // file that holds the configuration
	ConfDir  string // where the runtime looks for it

	APIServer     string // the API server's URL; empty: as the kubelet has it
	Kubelet       string // the kubelet's kubeconfig
	APIServerFile string // where daemons read the URL
}

// Run installs everything, each file at once and the configuration last: a runtime that sees it finds what it names. It
// may be run again; what is there already is replaced only if it differs. It returns the files that it wrote.
func (p Plan) Run() (wrote []string, err error) {
	files, err := p.files()
	if err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	for _, f := range files {
		changed, err := replace(f)
		if err != nil {
			return wrote, fmt.Errorf("install: %w", err)
		}
		if changed {
			wrote = append(wrote, f.path)
		}
	}
	return wrote, nil
}

// file is one that is to be there.
type file struct {
	path string
	data []byte
	mode fs.FileMode
}

// files reads everything that is to be written, in order: nothing is written while anything is wrong.
func (p Plan) files() ([]file, error) {
	var out []file
	var errs []error
	add := func(path string, mode fs.FileMode, data []byte, err error) {
		errs = append(errs, err)
		out = append(out, file{path, data, mode})
	}
	if p.BinDir != "" {
		for _, name := range Plugins {
			b, err := os.ReadFile(filepath.Join(p.From, name))
			add(filepath.Join(p.BinDir, name), 0o755, b, err)
		}
	}
	if p.APIServerFile != "" {
		server, err := p.server()
		add(p.APIServerFile, 0o644, []byte(server+"\n"), err)
	}
	if p.Conflist != "" {
		b, err := os.ReadFile(p.Conflist)
		if err == nil {
			err = check(b)
		}
		add(filepath.Join(p.ConfDir, ConflistName), 0o644, b, err)
	}
	return out, errors.Join(errs...)
}

// check wants what a runtime wants of a list, so that a mistake does not leave the node without a network.
func check(conflist []byte) error {
	var v struct {
		Name    string
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal(conflist, &v); err != nil {
		return fmt.Errorf("conflist: %w", err)
	}
	if v.Name == "" || len(v.Plugins) == 0 {
		return errors.New("conflist: it has no name or no plugins")
	}
	for i, p := range v.Plugins {
		if p.Type == "" {
			return fmt.Errorf("conflist: plugins[%d].type is missing", i)
		}
	}
	return nil
}

// server is the API server's URL.
func (p Plan) server() (string, error) {
	s := p.APIServer
	if s == "" {
		var err error
		if s, err = serverOf(p.Kubelet); err != nil {
			return "", fmt.Errorf("find the API server (name it if this is not its place): %w", err)
		}
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return "", fmt.Errorf("API server: %q is not a URL", s)
	}
	return s, nil
}

// serverOf reads the server of a kubeconfig's current context.
func serverOf(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var v struct {
		Current  string `json:"current-context"`
		Contexts []struct {
			Name    string
			Context struct{ Cluster string }
		}
		Clusters []struct {
			Name    string
			Cluster struct{ Server string }
		}
	}
	if err := yaml.Unmarshal(b, &v); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	for _, ctx := range v.Contexts {
		for _, c := range v.Clusters {
			if ctx.Name == v.Current && c.Name == ctx.Context.Cluster {
				return c.Cluster.Server, nil
			}
		}
	}
	return "", fmt.Errorf("%s: its current context %q names no cluster", path, v.Current)
}

// replace makes the file what it is to be, by renaming: whoever opens or runs it meets the old one or the new one.
func replace(f file) (changed bool, err error) {
	if info, err := os.Lstat(f.path); err == nil && info.Mode() == f.mode {
		if have, err := os.ReadFile(f.path); err == nil && bytes.Equal(have, f.data) {
			return false, nil
		}
	}
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(f.path)+".") // runtimes read no names like this
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(f.data)
	if err = errors.Join(err, tmp.Chmod(f.mode), tmp.Sync(), tmp.Close()); err != nil {
		return false, err
	}
	return true, os.Rename(tmp.Name(), f.path)
}

// Remove takes the configuration off the node at first, so that no runtime calls what goes next: the plugins. A
// configuration that is not ours stays. It returns the files that it removed.
func Remove(confDir, binDir string) (gone []string, err error) {
	conflists, err := ours(confDir)
	errs := []error{err}
	paths := conflists
	for _, name := range Plugins {
		paths = append(paths, filepath.Join(binDir, name))
	}
	for _, path := range paths {
		switch err := os.Remove(path); {
		case err == nil:
			gone = append(gone, path)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return gone, errors.Join(errs...)
}

// ours are the configurations in the directory that name a plugin of ours first.
func ours(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		var v struct{ Plugins []struct{ Type string } }
		if err == nil && strings.HasSuffix(path, ".conflist") && json.Unmarshal(b, &v) == nil && len(v.Plugins) > 0 && v.Plugins[0].Type == Plugins[0] {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// Bridges are the names of the bridges that our configurations in the directory put pods on.
func Bridges(confDir string) (names []string, err error) {
	paths, err := ours(confDir)
	for _, path := range paths {
		var v struct {
			Plugins []struct{ Type, Bridge string }
		}
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &v) == nil {
			names = append(names, cmp.Or(v.Plugins[0].Bridge, "cni0"))
		}
	}
	return names, err
}
