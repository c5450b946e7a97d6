// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab/story"
)

// Every scenario holds all that it claims.
func TestScenarios(t *testing.T) {
	for _, s := range story.Scenarios() {
		t.Run(s[0], func(t *testing.T) {
			if out, err := l3ctl(t, "lab", "run", s[0]); err != nil || !strings.Contains(out, "claims were checked, and hold") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	if out, err := l3ctl(t, "lab", "run", "moon-landing"); err == nil || !strings.Contains(out, `invalid argument "moon-landing"`) {
		t.Errorf("an unknown scenario: %v %s", err, out)
	}
}
