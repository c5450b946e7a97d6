// SPDX-License-Identifier: Apache-2.0

// Package runtimes drives our plugins by container runtimes that others wrote, on the nodes of the lab.
package runtimes

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
	"github.com/l3edge/l3edge/pkg/lab/cri"
	"github.com/l3edge/l3edge/pkg/lab/nest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// What the outer process tells the inner one: where the programs lie, and under which control group all pods live.
const (
	binVar   = "L3EDGE_RUNTIMES_BIN"
	groupVar = "L3EDGE_RUNTIMES_GROUP"
)

func TestMain(m *testing.M) {
	if nest.Boot() != nil {
		os.Exit(m.Run())
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtimes:", err)
		code = 1
	}
	os.Exit(code)
}

// outside prepares what the tests need, runs them in a nest, and removes the control groups, which outlive it.
func outside() (code int, err error) {
	if err := cri.Probe(); err != nil {
		return 1, err
	}
	bin, err := build()
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(bin) //nolint:errcheck // a temporary directory
	group := fmt.Sprintf("l3edge-runtimes-%d", os.Getpid())
	if err := errors.Join(os.Setenv(binVar, bin), os.Setenv(groupVar, group)); err != nil {
		return 1, err
	}
	code, err = nest.Nest{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}.Run()
	return code, errors.Join(err, place.Eventually(10*time.Second, func() error { return cri.RemoveGroup(group) }))
}

// build makes our programs, and beside them the tests' own and the loopback plugin that containerd cannot do without.
func build() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/l3edge/l3edge").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(out))
	if out, err := exec.Command("make", "--no-print-directory", "-s", "-C", root, "build").CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "l3edge-runtimes-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "./guest", "./hold", "github.com/containernetworking/plugins/plugins/main/loopback")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tests' programs: %w\n%s", err, out)
	}
	ours, err := os.ReadDir(filepath.Join(root, "bin"))
	if err != nil {
		return "", err
	}
	for _, f := range ours {
		if err := os.Symlink(filepath.Join(root, "bin", f.Name()), filepath.Join(dir, f.Name())); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// up is a lab for this test, with routed and portald on all nodes and containerd on those that are named.
func up(t *testing.T, names ...string) (*lab.Lab, []*node) {
	t.Helper()
	return upAt(t, lab.Embedded, names...)
}

// upAt is up with that router as the switch.
func upAt(t *testing.T, mls lab.Kind, names ...string) (*lab.Lab, []*node) {
	t.Helper()
	l, err := lab.Up(lab.Config{Bin: os.Getenv(binVar), MLS: mls})
	if l != nil {
		t.Cleanup(func() {
			if t.Failed() {
				l.Dump(os.Stdout)
			}
			l.Down()
		})
	}
	must(t, err)
	must(t, l.StartAllRouted())
	for _, h := range l.Nodes() {
		must(t, h.StartPortald())
	}
	images := saveImages(t)
	var nodes []*node
	for _, name := range names {
		nodes = append(nodes, newNode(t, l.Hosts[name], images))
	}
	return l, nodes
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within fails the test unless f returns nil within the limit.
func within(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	start := time.Now()
	if err := place.Eventually(limit, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Logf("%s: took %v", what, took.Round(time.Millisecond))
	}
}
