// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"testing"
)

func TestUnknownSwitch(t *testing.T) {
	if err := Kind("cisco").check(); err == nil || !strings.Contains(err.Error(), "embedded frr bird") {
		t.Errorf("got %v, want the kinds there are", err)
	}
}
