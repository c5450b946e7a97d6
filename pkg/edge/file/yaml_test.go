// SPDX-License-Identifier: Apache-2.0

package file

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// Whatever plain makes of a text, the library makes the same of it.
func agrees(t *testing.T, text []byte) (quick bool) {
	t.Helper()
	got, ok := plain(text)
	if !ok {
		return false
	}
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%q: no JSON: %v\n%s", text, err, got)
	}
	if err := yaml.UnmarshalStrict(text, &b); err != nil {
		t.Fatalf("%q: the library refuses it: %v", text, err)
	}
	if d := cmp.Diff(b, a); d != "" {
		t.Fatalf("%q (-library +plain):\n%s", text, d)
	}
	return true
}

func TestPlainYAML(t *testing.T) {
	for _, row := range []struct {
		text  string
		quick bool
	}{
		{webfrontend[:len(webfrontend)/2], false}, // cut somewhere
		{"a: b\n", true}, {"a: 1\nb: true\nc: null\nd:\ne: 'x y'\nf: \"z, # no comment\"\n", true},
		{"a:\n- b: 1\n  c: 2\n- d: 3\n", true}, {"a:\n  - - x\n    - w\n  - z\n", true}, {"- a\n-   b: c\n    d: e\n", true},
		{"a: [10.10.10.2, x]\nb: {ready: false, x: 7}\nc: []\nd: {}\n", true}, {"a: 10.0.0.0/8\nb: fd00::1\nc: 2001:db8::1\nd: 10.1.2.3\n", true},
		{"a: 1.5\n", false}, {"a: 010\n", false}, {"a: yes\n", false}, {"a: Null\n", false}, {"a: 1e3\n", false}, {"a: 1:20\n", false},
		{"a: b # c\n", false}, {"a: &x b\n", false}, {"a: |\n  b\n", false}, {"a: b\n  c\n", false}, {"a: b\na: c\n", false}, {"1: 2\n", false},
		{"\ta: b\n", false}, {"a: b: c\n", false}, {"a: 'it''s'\n", false}, {"a: \"\\n\"\n", false}, {"- a\nb: c\n", false}, {"a:\n  b: 1\n c: 2\n", false},
		{"a: 2024-01-01\n", false}, {"a: -1\n", false}, {"a: 0x1f\n", false}, {"a: x:\n", false}, {"[a]: b\n", false}, {"a: [b, ]\n", false}, {"yes: a\n", false},
		{"a: {b: [c, {d: 1}], e: {f: true}}\n- b", false}, {"a: {b: [c, {d: 1}], e: { f: true } }\n", true}, {"a: ['x y', \"z\"]\n", true},
		{"- {addresses: [10.128.0.1], nodeName: elsewhere, conditions: {ready: true, serving: true}}\n", true},
		{"a: [b\n", false}, {"a: [b]]\n", false}, {"a: {b: c]\n", false}, {"a: ['b' c]\n", false}, {"a: ['b]\n", false}, {"a: {b: }\n", false}, {"a: [[[[[[[[[[[[b]]]]]]]]]]]]\n", false},
		{"a: 1.2.3\n", false}, {"a: 12.0.0.1/8/x\n", true},
	} {
		if quick := agrees(t, []byte(row.text)); quick != row.quick {
			t.Errorf("%q: the quick way %v, want %v", row.text, quick, row.quick)
		}
	}
}

func FuzzPlainYAML(f *testing.F) {
	for _, s := range []string{webfrontend, "a:\n- b: 1\n  c: [x, y]\n", "a: {b: c}\n", "a: {b: [c, {d: 'e'}]}\n", "- - a\n  - b\n", "a: 'b'\nc: 10.0.0.1/8\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) { agrees(t, text) })
}
