// SPDX-License-Identifier: Apache-2.0

// Package labtest gives end-to-end tests a lab, as root or not, and tells what it looked like when they fail.
package labtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/nest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// binVar tells the inner process where our programs lie: there is no Go cache for it to find them with.
const binVar = "L3EDGE_LABTEST_BIN"

// Main is for TestMain: it builds our programs into the module's bin directory and runs the tests inside a nest.
// It does not return.
func Main(m *testing.M) {
	if nest.Boot() != nil {
		os.Exit(m.Run())
	}
	bin, err := build()
	if err == nil {
		err = os.Setenv(binVar, bin)
	}
	code := 1
	if err == nil {
		code, err = nest.Nest{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "labtest:", err)
	}
	os.Exit(code)
}

// build makes bin fresh, in the one way there is: when nothing has changed that takes a second.
func build() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if out, err := exec.Command("make", "--no-print-directory", "-s", "-C", root, "build").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return filepath.Join(root, "bin"), nil
}

// Bin is where our programs lie.
func Bin() string { return os.Getenv(binVar) }

// Up is a lab for this test and its subtests. A machine that cannot hold it (no FRR for an ordinary user) skips the test
// and says why; a failed test prints the whole lab. Only one lab can be up at a time.
func Up(t *testing.T, mls lab.Kind) *lab.Lab {
	t.Helper()
	return up(t, lab.Config{Bin: Bin(), MLS: mls})
}

// Bare is Up with a switch that was told nothing about BGP (lab.Config.Bare).
func Bare(t *testing.T, mls lab.Kind) *lab.Lab {
	t.Helper()
	return up(t, lab.Config{Bin: Bin(), MLS: mls, Bare: true})
}

func up(t *testing.T, cfg lab.Config) *lab.Lab {
	t.Helper()
	l, err := lab.Up(cfg)
	if l != nil {
		t.Cleanup(func() {
			if t.Failed() {
				l.Dump(os.Stdout)
			}
			l.Down()
		})
	}
	if errors.Is(err, lab.ErrNoUser) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Within fails the test unless f returns nil within the limit.
func Within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	start := time.Now()
	if err := place.Eventually(limit, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	t.Logf("%s: after %v", what, time.Since(start).Round(time.Millisecond))
}
