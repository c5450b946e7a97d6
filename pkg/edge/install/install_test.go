// SPDX-License-Identifier: Apache-2.0

package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const conflist = `{"cniVersion":"1.0.0","name":"l3edge","plugins":[{"type":"bridge-l3"},{"type":"portal"}]}`

const kubelet = `apiVersion: v1
kind: Config
current-context: node
contexts: [{name: other, context: {cluster: far}}, {name: node, context: {cluster: here}}]
clusters: [{name: far, cluster: {server: "https://192.0.2.1:6443"}}, {name: here, cluster: {server: "https://10.20.30.61:6443"}}]
`

// node is a directory that stands for a node, with what a release brings.
func node(t *testing.T) (root string, p Plan) {
	t.Helper()
	root = t.TempDir()
	put(t, root, "from/bridge-l3", "b1")
	put(t, root, "from/portal", "p1")
	put(t, root, "conflist", conflist)
	put(t, root, "kubelet.conf", kubelet)
	at := func(p string) string { return filepath.Join(root, p) }
	return root, Plan{
		From: at("from"), BinDir: at("opt/cni/bin"), Conflist: at("conflist"), ConfDir: at("etc/cni/net.d"),
		Kubelet: at("kubelet.conf"), APIServerFile: at("run/api-server"),
	}
}

func put(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// files are those below the directories of a node that something was installed into.
func files(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range []string{"opt", "etc", "run"} {
		_ = filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				b, _ := os.ReadFile(path)
				i, _ := d.Info()
				out[strings.TrimPrefix(path, root+"/")] = i.Mode().String() + " " + string(b)
			}
			return nil
		})
	}
	return out
}

func TestInstall(t *testing.T) {
	root, p := node(t)
	wrote, err := p.Run()
	if err != nil || len(wrote) != 4 || filepath.Base(wrote[3]) != ConflistName {
		t.Errorf("wrote %v, %v: want the conflist last", wrote, err)
	}
	want := map[string]string{
		"opt/cni/bin/bridge-l3": "-rwxr-xr-x b1", "opt/cni/bin/portal": "-rwxr-xr-x p1",
		"etc/cni/net.d/10-l3edge.conflist": "-rw-r--r-- " + conflist, "run/api-server": "-rw-r--r-- https://10.20.30.61:6443\n",
	}
	if diff := cmp.Diff(want, files(t, root)); diff != "" {
		t.Errorf("after the first time (-want +got):\n%s", diff)
	}
	if wrote, err := p.Run(); err != nil || len(wrote) != 0 {
		t.Errorf("the second time wrote %v, %v", wrote, err)
	}
	put(t, root, "from/portal", "p2")
	p.APIServer = "https://api.example.org"
	if wrote, err := p.Run(); err != nil || len(wrote) != 2 {
		t.Errorf("a new release wrote %v, %v", wrote, err)
	}
	want["opt/cni/bin/portal"], want["run/api-server"] = "-rwxr-xr-x p2", "-rw-r--r-- https://api.example.org\n"
	if diff := cmp.Diff(want, files(t, root)); diff != "" {
		t.Errorf("after the new release (-want +got):\n%s", diff)
	}
}

func TestNothingIsInstalledWhileAnythingIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spoil      func(root string, p *Plan)
	}{
		{"a plugin is missing", "portal: no such file", func(root string, _ *Plan) { _ = os.Remove(filepath.Join(root, "from/portal")) }},
		{"the conflist is no JSON", "conflist: invalid", func(root string, _ *Plan) { _ = os.WriteFile(filepath.Join(root, "conflist"), []byte("{]"), 0o644) }},
		{"the conflist is empty", "conflist: it has no name or no plugins", func(root string, _ *Plan) { _ = os.WriteFile(filepath.Join(root, "conflist"), []byte("{}"), 0o644) }},
		{"no kubelet", "find the API server", func(_ string, p *Plan) { p.Kubelet += "x" }},
		{"no URL", `API server: "10.20.30.61" is not a URL`, func(_ string, p *Plan) { p.APIServer = "10.20.30.61" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, p := node(t)
			tt.spoil(root, &p)
			if _, err := p.Run(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if got := files(t, root); len(got) > 0 {
				t.Errorf("installed all the same: %v", got)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	root, p := node(t)
	if _, err := p.Run(); err != nil {
		t.Fatal(err)
	}
	put(t, root, "etc/cni/net.d/20-other.conflist", `{"name":"x","plugins":[{"type":"ptp"}]}`)
	put(t, root, "opt/cni/bin/ptp", "x")
	put(t, root, "etc/cni/net.d/05-mine.conflist", conflist)
	gone, err := Remove(p.ConfDir, p.BinDir)
	if err != nil || len(gone) != 4 {
		t.Errorf("removed %v, %v", gone, err)
	}
	if got := files(t, root); len(got) != 3 || got["opt/cni/bin/ptp"] == "" || got["etc/cni/net.d/20-other.conflist"] == "" {
		t.Errorf("left: %v", got)
	}
	if gone, err := Remove(p.ConfDir, p.BinDir); err != nil || len(gone) != 0 {
		t.Errorf("once more: %v, %v", gone, err)
	}
}
