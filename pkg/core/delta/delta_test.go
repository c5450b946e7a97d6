// SPDX-License-Identifier: Apache-2.0

package delta

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	desired := map[string]int{"b": 2, "a": 1, "c": 30}
	actual := map[string]int{"a": 1, "c": 3, "z": 26, "y": 25}
	p := Diff(desired, actual, func(a, b int) bool { return a == b })
	want := "+ b: 2\n~ c: 3 -> 30\n- y: 25\n- z: 26\n"
	if d := cmp.Diff(want, p.String()); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	if p.Empty() {
		t.Error("plan with four changes says it is empty")
	}
	if p := Diff(actual, actual, func(a, b int) bool { return a == b }); !p.Empty() {
		t.Errorf("equal maps, plan:\n%s", p)
	}
}
