// SPDX-License-Identifier: Apache-2.0

package once

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunUndoesFromTheFailedStepBack(t *testing.T) {
	boom := errors.New("boom")
	var log []string
	step := func(name string, do, undo error) Step {
		return Step{name, func() error { log = append(log, "do "+name); return do }, func() error { log = append(log, "undo "+name); return undo }}
	}
	rows := []struct {
		name  string
		steps []Step
		log   string
		err   []string
	}{
		{"all goes well", []Step{step("a", nil, nil), step("b", nil, nil)}, "do a, do b", nil},
		{"the second fails", []Step{step("a", nil, nil), step("b", boom, nil), step("c", nil, nil)}, "do a, do b, undo b, undo a", []string{"b: boom"}},
		{"an undo fails too", []Step{step("a", nil, errors.New("stuck")), step("b", boom, nil)}, "do a, do b, undo b, undo a", []string{"b: boom", "undo a: stuck"}},
		{"nothing to undo", []Step{{"a", func() error { return boom }, nil}}, "", []string{"a: boom"}},
		{"nothing to do", nil, "", nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			log = nil
			err := Run(row.steps)
			if diff := cmp.Diff(row.log, strings.Join(log, ", ")); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			if (err != nil) != (row.err != nil) || err != nil && (!errors.Is(err, boom) || err.Error() != strings.Join(row.err, "\n")) {
				t.Errorf("error %v, want %v", err, row.err)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	if diff := cmp.Diff("1. make it\n2. use it\n", Describe([]Step{{Name: "make it"}, {Name: "use it"}})); diff != "" {
		t.Error(diff)
	}
}
