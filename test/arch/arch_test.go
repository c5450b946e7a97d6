// SPDX-License-Identifier: Apache-2.0

// Package arch keeps the house rules that a compiler does not: who may import whom, and that every room has a name.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/l3edge/l3edge/"

type pkg struct {
	ImportPath, Doc                    string
	Name                               string
	Imports, Deps                      []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, module) }

// packages lists every package of the module, as go list sees them.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	if len(all) < 10 {
		t.Fatalf("go list sees %d packages: looking in the wrong place", len(all))
	}
	return all
}

// layer is the first two folders of a package of pkg/ ("pkg/core"), or the first one ("daemon").
func layer(rel string) string {
	parts := strings.Split(rel, "/")
	if parts[0] == "pkg" && len(parts) > 1 {
		return "pkg/" + parts[1]
	}
	return parts[0]
}

// mayImport says which layers of ours each layer may see. Edges see core and never each other; the lab is a main in all
// but name, as it plays the runtime and the cables.
var mayImport = map[string][]string{
	"pkg/core":   {"pkg/core"},
	"pkg/engine": {"pkg/core"},
	"pkg/edge":   {"pkg/core"},
	"pkg/lab":    {"pkg/core", "pkg/engine", "pkg/edge", "pkg/lab"},
	"daemon":     {"pkg/core", "pkg/engine", "pkg/edge"},
	"plugins":    {"pkg/core", "pkg/engine", "pkg/edge"},
	"cmd":        {"pkg/core", "pkg/engine", "pkg/edge", "pkg/lab"},
	"test":       {"pkg/core", "pkg/engine", "pkg/edge", "pkg/lab"},
}

// exceptions are single arrows that the rule forbids and a reason allows. A stale one fails the test.
var exceptions = map[[2]string]string{
	{"pkg/edge/netns/nstest", "pkg/edge/netns"}: "the test double lives beside what it doubles",
}

func TestImportRule(t *testing.T) {
	used := map[[2]string]bool{}
	for _, p := range packages(t) {
		from := p.rel()
		allowed, ok := mayImport[layer(from)]
		if !ok {
			t.Errorf("%s: no layer has this name; the top level is fixed", from)
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if !ours || strings.HasPrefix(to, from+"/") || path.Dir(from) == to && layer(from) != "pkg/edge" {
				continue
			}
			if slices.Contains(allowed, layer(to)) {
				continue
			}
			if _, ok := exceptions[[2]string{from, to}]; ok {
				used[[2]string{from, to}] = true
				continue
			}
			t.Errorf("%s imports %s: %s may import only %s", from, to, layer(from), strings.Join(allowed, ", "))
		}
	}
	for e := range exceptions {
		if !used[e] {
			t.Errorf("exception %s -> %s is no longer needed", e[0], e[1])
		}
	}
}

// fences are libraries that only some packages may import directly, each with its reason.
var fences = []struct {
	lib    string
	within []string
	reason string
}{
	{"github.com/osrg/gobgp/", []string{"pkg/edge/bgp"}, "BGP hides behind one door"},
	{"github.com/google/nftables", []string{"pkg/edge/nft"}, "nftables hides behind one door"},
	{"github.com/coreos/go-iptables", []string{"pkg/edge/ipt"}, "iptables hides behind one door"},
	{"github.com/containernetworking/cni/libcni", []string{"pkg/lab"}, "only the lab plays the runtime"},
	{"github.com/containernetworking/", []string{"pkg/edge/cni", "pkg/lab"}, "CNI types stop at the plugin's border"},
	{"github.com/vishvananda/netlink", []string{"pkg/edge/", "pkg/lab"}, "the kernel is an edge"},
	{"k8s.io/client-go/", []string{"pkg/edge/kube"}, "the API server hides behind one door"},
	{"k8s.io/", []string{"pkg/core/kubeobj", "pkg/edge/file", "pkg/edge/kube"}, "Kubernetes types stop at the sources"},
	{"github.com/gopacket/", []string{"pkg/edge/pcapng"}, "a file format hides behind one door"},
	{"github.com/spf13/cobra", []string{"cmd/l3ctl"}, "daemons and plugins have few flags"},
}

func TestFences(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for _, f := range fences {
				if !strings.HasPrefix(imp, f.lib) {
					continue
				}
				ok := slices.ContainsFunc(f.within, func(w string) bool {
					return p.rel() == w || strings.HasPrefix(p.rel(), strings.TrimSuffix(w, "/")+"/")
				})
				if !ok {
					t.Errorf("%s imports %s, which only %s may: %s", p.rel(), imp, strings.Join(f.within, ", "), f.reason)
				}
				break
			}
		}
	}
}

// coreStd are standard packages that pure code has no business with: the kernel, the clock is a parameter, the log.
var coreForbidden = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "syscall", "golang.org/x/sys/unix"}

func TestCoreIsPure(t *testing.T) {
	for _, p := range packages(t) {
		if layer(p.rel()) != "pkg/core" {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(coreForbidden, imp) {
				t.Errorf("%s imports %s: core computes, edge touches", p.rel(), imp)
			}
		}
	}
}

// TestPluginsStayLight: a plugin starts on every pod's path, so what it links is what every pod waits for.
func TestPluginsStayLight(t *testing.T) {
	found := 0
	for _, p := range packages(t) {
		if layer(p.rel()) != "plugins" && p.rel() != "cmd/pause" {
			continue
		}
		found++
		for _, dep := range p.Deps {
			for _, heavy := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/osrg/", "google.golang.org/", "github.com/prometheus/", "github.com/spf13/", "net/http", "crypto/tls"} {
				if dep == strings.TrimSuffix(heavy, "/") || strings.HasSuffix(heavy, "/") && strings.HasPrefix(dep, heavy) {
					t.Errorf("%s links %s", p.rel(), dep)
				}
			}
		}
	}
	if found < 3 {
		t.Errorf("found %d light binaries, want bridge-l3, portal and pause", found)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		prefix := "Package " + p.Name + " "
		if p.Name == "main" {
			prefix = "Command " + path.Base(p.ImportPath) + " "
		}
		if !strings.HasPrefix(p.Doc, prefix) {
			t.Errorf("%s: its doc must begin with %q, it says %q", p.rel(), prefix, p.Doc)
		}
	}
}
