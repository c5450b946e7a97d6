// SPDX-License-Identifier: Apache-2.0

package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// files lists the repository's files below dir with one of the suffixes, relative to the root.
func files(t *testing.T, dir string, suffixes ...string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, rel) {
			return filepath.SkipDir
		}
		if !d.IsDir() && slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(rel, s) }) {
			out = append(out, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, rel string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var mdLink = regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)

func TestLinksInDocsLead(t *testing.T) {
	pages := files(t, ".", ".md")
	if len(pages) < 3 {
		t.Fatalf("found only %v", pages)
	}
	for _, page := range pages {
		for _, m := range mdLink.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}

func TestEveryBinaryHasAPage(t *testing.T) {
	for _, p := range packages(t) {
		if p.Name != "main" || layer(p.rel()) == "test" || p.rel() == "cmd/pause" {
			continue
		}
		page := "docs/reference/" + filepath.Base(p.rel()) + ".md"
		if _, err := os.Stat(filepath.Join(root, page)); err != nil {
			t.Errorf("%s has no %s", p.rel(), page)
		}
	}
}

func TestArchitectureIsTheMap(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	if n := strings.Count(text, "\n"); n >= 150 {
		t.Errorf("ARCHITECTURE.md has %d lines; a map that long is not read", n)
	}
	for _, p := range packages(t) {
		if rel := p.rel(); strings.HasPrefix(rel, "pkg/") && !strings.Contains(rel, "nstest") {
			if name := filepath.Base(rel); !strings.Contains(text, "`"+name+"`") && !strings.Contains(text, "/"+name+"`") {
				t.Errorf("ARCHITECTURE.md does not name %s", rel)
			}
		}
	}
}

// TestEverySampleIsParsed: a sample that no test reads is a sample that is wrong one day.
func TestEverySampleIsParsed(t *testing.T) {
	var tests strings.Builder
	for _, f := range files(t, ".", "_test.go") {
		tests.WriteString(read(t, f))
	}
	for _, sample := range files(t, "conf", "") {
		if !strings.Contains(tests.String(), filepath.Base(sample)) && !strings.Contains(tests.String(), filepath.Dir(sample)+`"`) {
			t.Errorf("no test mentions %s", sample)
		}
	}
}

func TestEveryGoFileHasItsLicence(t *testing.T) {
	for _, f := range files(t, ".", ".go") {
		if !strings.HasPrefix(read(t, f), "// SPDX-License-Identifier: Apache-2.0\n") {
			t.Errorf("%s does not begin with its SPDX line", f)
		}
	}
}
