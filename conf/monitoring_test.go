// SPDX-License-Identifier: Apache-2.0

// Package conf_test holds the dashboards and alert rules to the metrics that the daemons have, and their documents too.
package conf_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// daemons are where each daemon's metrics are written, explained and shown.
var daemons = []struct{ name, source, doc, board string }{
	{"routed", "../daemon/routed/metrics.go", "../docs/reference/routed.md", "../conf/grafana/routed.json"},
	{"portald", "../pkg/engine/portals/metrics.go", "../docs/reference/portald.md", "../conf/grafana/portald.json"},
}

var metric = regexp.MustCompile(`\b(?:routed|portald)_[a-z][a-z0-9_]*[a-z0-9]\b`)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// known are the metrics that the daemons write, as their sources name them.
func known(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, d := range daemons {
		for _, name := range metric.FindAllString(read(t, d.source), -1) {
			if strings.HasPrefix(name, d.name+"_") {
				out[name] = true
			}
		}
	}
	if len(out) < 30 {
		t.Fatalf("only %d metrics found: %v", len(out), out)
	}
	return out
}

func TestDashboardsAndAlertsNameWhatThereIs(t *testing.T) {
	have := known(t)
	files, err := filepath.Glob("*/*.json")
	if err != nil || len(files) != len(daemons) {
		t.Fatalf("dashboards %v, %v", files, err)
	}
	shown := map[string]bool{}
	for _, f := range append(files, "prometheus/alerts.yaml") {
		for _, name := range metric.FindAllString(read(t, f), -1) {
			base := strings.TrimSuffix(name, "_bucket")
			if !have[base] {
				t.Errorf("%s names %s, which no daemon has", f, name)
			}
			if strings.HasSuffix(f, ".json") {
				shown[base] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if !shown[name] {
			t.Errorf("no dashboard shows %s", name)
		}
	}
}

func TestDashboardsAreDashboards(t *testing.T) {
	for _, d := range daemons {
		var board struct {
			UID, Title string
			Panels     []struct {
				ID      int
				Title   string
				Targets []struct{ Expr string }
				GridPos struct{ X, Y, W, H int }
			}
		}
		if err := json.Unmarshal([]byte(read(t, d.board)), &board); err != nil {
			t.Fatal(err)
		}
		ids, places := map[int]bool{}, map[[2]int]bool{}
		for _, p := range board.Panels {
			at := [2]int{p.GridPos.X, p.GridPos.Y}
			if ids[p.ID] || places[at] || p.Title == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %d %q at %v", d.name, p.ID, p.Title, at)
			}
			ids[p.ID], places[at] = true, true
			for _, q := range p.Targets {
				if strings.Count(q.Expr, "(") != strings.Count(q.Expr, ")") || !strings.Contains(q.Expr, "$instance") {
					t.Errorf("%s: panel %q asks %s", d.name, p.Title, q.Expr)
				}
			}
		}
		if board.UID == "" || board.Title == "" || len(board.Panels) == 0 {
			t.Errorf("%s: no dashboard", d.name)
		}
	}
}

func TestAlertsAreRules(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "prometheus/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || seen[r.Alert] || r.Expr == "" || r.Annotations["summary"] == "" || !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("%s: rule %+v", g.Name, r)
			}
			seen[r.Alert] = true
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d alerts", len(seen))
	}
}

// A document may write a family short: `routed_session_up`, `_losses_total`.
func TestEveryMetricIsDocumented(t *testing.T) {
	for _, d := range daemons {
		doc := read(t, d.doc)
		for _, name := range slices.Sorted(maps.Keys(known(t))) {
			if !strings.HasPrefix(name, d.name+"_") {
				continue
			}
			if !strings.Contains(doc, name) && !inShort(doc, name) {
				t.Errorf("%s does not explain %s", d.doc, name)
			}
		}
	}
}

func inShort(doc, name string) bool {
	for line := range strings.Lines(doc) {
		for i, c := range name {
			if c == '_' && i > len("portald") && strings.Contains(line, "`"+name[:i+1]) && strings.Contains(line, "`"+name[i:]) {
				return true
			}
		}
	}
	return false
}
