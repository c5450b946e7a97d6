// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"testing"
)

// TestNamesReadsAllOfADirectory: a record behind a thousand marks keeps 127.0.0.1 open.
func TestNamesReadsAllOfADirectory(t *testing.T) {
	dir := t.TempDir()
	for i := range 1000 {
		if err := touch(filepath.Join(dir, fmt.Sprintf("%sveth%09d", localnetMark, i))); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := names(dir); len(list) != 1000 || err != nil {
		t.Errorf("%d names, %v, want 1000", len(list), err)
	}
	if list, err := names(filepath.Join(dir, "missing")); list != nil || err != nil {
		t.Errorf("of nothing: %v, %v", list, err)
	}
}
