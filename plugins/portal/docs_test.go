// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/mark"
)

func TestPageKnowsTheKeys(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/portal.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| `portaldSocket` | `" + mark.PortaldSocket + "` |", "| `hostPort` |", "| `containerPort` |", "| `protocol` |", "| `hostIP` |", mark.TableHostPorts} {
		if !strings.Contains(string(page), want) {
			t.Errorf("docs/reference/portal.md lacks %s", want)
		}
	}
}
