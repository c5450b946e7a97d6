// SPDX-License-Identifier: Apache-2.0

// Package once carries out a plan from first to last step, and undoes what it did when a step fails.
package once

import (
	"errors"
	"fmt"
	"strings"
)

// Step is one change of the world. Undo, which may be nil, must put things back whether or not Do got half way: it is
// called for the step that failed too.
type Step struct {
	Name string // what it does, as a person would say it: "make the veth pair"
	Do   func() error
	Undo func() error
}

// Run does the steps in order. When one fails, those begun are undone in reverse order and the error says which step
// failed, and what could not be undone, if anything.
func Run(steps []Step) error {
	for i, s := range steps {
		err := s.Do()
		if err == nil {
			continue
		}
		errs := []error{fmt.Errorf("%s: %w", s.Name, err)}
		for j := i; j >= 0; j-- {
			if steps[j].Undo == nil {
				continue
			}
			if err := steps[j].Undo(); err != nil {
				errs = append(errs, fmt.Errorf("undo %s: %w", steps[j].Name, err))
			}
		}
		return errors.Join(errs...)
	}
	return nil
}

// Describe prints the plan a line per step.
func Describe(steps []Step) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%d. %s\n", i+1, s.Name)
	}
	return b.String()
}
