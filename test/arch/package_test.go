// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestPackage: what conf/packages/nfpm.yaml puts into a Debian package is there, and every program but the lab's is in it.
func TestPackage(t *testing.T) {
	const root = "../.."
	text, err := os.ReadFile(root + "/conf/packages/nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Contents []struct{ Src, Dst string }
	}
	if err := yaml.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	programs := map[string]bool{}
	for _, dir := range []string{"cmd", "daemon", "plugins"} {
		mains, err := filepath.Glob(root + "/" + dir + "/*/main.go")
		if err != nil || len(mains) == 0 {
			t.Fatal(dir, err)
		}
		for _, m := range mains {
			programs[filepath.Base(filepath.Dir(m))] = false
		}
	}
	for _, c := range p.Contents {
		name, binary := strings.CutPrefix(c.Src, "dist/${ARCH}/")
		unit, isUnit := strings.CutPrefix(c.Src, "dist/units/")
		switch {
		case binary:
			if _, ok := programs[name]; !ok {
				t.Errorf("%s is no program of ours", c.Src)
			}
			programs[name] = true
		case isUnit:
			if _, err := os.Stat(root + "/conf/systemd/" + unit); err != nil {
				t.Error(err)
			}
		case c.Src == "" || strings.HasPrefix(c.Src, "dist/"): // a directory, or the list of modules
		default:
			if _, err := os.Stat(filepath.Join(root, c.Src)); err != nil {
				t.Error(err)
			}
		}
	}
	for name, in := range programs {
		if !in && name != "pause" { // pods' pause comes with the runtime; ours is the lab's
			t.Errorf("%s is not in the package", name)
		}
	}
}
