// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/lab/labtest"
)

// l3ctl runs our l3ctl beside all labs, as on a machine.
func l3ctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command(filepath.Join(labtest.Bin(), "l3ctl"), args...).CombinedOutput()
	return string(out), err
}

// A lab in the background: up, looked at, entered, and down without a trace.
func TestLabInTheBackground(t *testing.T) {
	before := namespaces(t)
	for _, step := range []struct {
		args  string
		want  string
		fails bool
	}{
		{"lab status", "no lab is up", false},
		{"lab exec kubminion1 -- true", "no lab called lab is up", true},
		{"lab up --visible", "The lab is up", false},
		{"lab up", "lab lab is up already", true},
		{"lab up --name=two --mls=bird", "l3ctl lab --name=two down", false},
		{"lab status", "kubminion4  192.168.10.65/24  pods 10.10.40.0/24", false},
		{"lab exec kubminion1 -- hostname", "kubminion1\n", false},
		{"lab exec kubminion1 -- false", "", true},
		{"lab exec kubminion9 -- true", "no host called kubminion9", true},
		{"lab exec mls -- ip -4 route", "10.10.40.0/24", false},
		{"lab exec kubminion1/web8080-1 -- ip -4 route", "default via 10.10.10.1", false},
		{"lab exec . -- ip netns exec kubminion4 ip -br -4 addr", "192.168.10.65/24", false},
		{"lab exec --name=two mls -- birdc -s /run/l3lab/mls/bird.ctl show route", "10.10.40.0/24", false},
		{"lab down --name=two", "lab two is down", false},
		{"lab down", "lab lab is down", false},
		{"lab down", "no lab called lab is up", false},
		{"lab up --mls=cisco", `unknown switch "cisco"`, true},
		{"lab status", "no lab is up", false},
	} {
		out, err := l3ctl(t, strings.Fields(step.args)...)
		if (err != nil) != step.fails || !strings.Contains(out, step.want) {
			t.Fatalf("l3ctl %s: %v\n%s\nwant %q", step.args, err, out, step.want)
		}
		if step.args == "lab up --visible" {
			if out := namespaces(t); !strings.Contains(out, "kubminion1") {
				t.Errorf("after --visible the machine has these namespaces:\n%s", out)
			}
		}
	}
	if after := namespaces(t); after != before {
		t.Errorf("namespaces before:\n%s\nand after:\n%s", before, after)
	}
}

func namespaces(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, "\n")
}

// The demo holds all that it claims, with every switch, and takes everything down again.
func TestDemo(t *testing.T) {
	out, err := l3ctl(t, "lab", "demo")
	if err != nil || !strings.Contains(out, "claims were checked, and hold") || strings.Contains(out, "\x1b[") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := l3ctl(t, "lab", "demo", "--keep", "--mls=bird", "--name=kept"); err != nil || !strings.Contains(out, "l3ctl lab --name=kept down") {
		t.Errorf("--keep: %v\n%s", err, out)
	}
	if out, err := l3ctl(t, "lab", "exec", "--name=kept", "outside", "--", "hostname"); err != nil || out != "outside\n" {
		t.Errorf("the kept lab cannot be entered: %v %s", err, out)
	}
	if out, err := l3ctl(t, "lab", "down", "--name=kept"); err != nil {
		t.Errorf("%v %s", err, out)
	}
}
