// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/service"
)

func TestSources(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		want string // source and portal nets, or the error
	}{
		{"manifests", []string{"--services=/etc/x"}, "/etc/x 10.100.0.0/16"},
		{"the API server, as a pod", []string{"--kubernetes"}, "kubernetes kubernetes"},
		{"the API server, by a file", []string{"--kubeconfig=/etc/k"}, "kubernetes kubernetes"},
		{"the API server, by its own address", []string{"--api-server=https://10.20.30.61:6443"}, "kubernetes https://10.20.30.61:6443 kubernetes"},
		{"a portal net that is given counts", []string{"--kubernetes", "--portal-net=10.96.0.0/12"}, "kubernetes 10.96.0.0/12"},
		{"both", []string{"--kubernetes", "--services=/etc/x"}, "--services and --kubernetes exclude each other"},
		{"once", []string{"--kubernetes", "--once"}, "--dry-run and --once need --services"},
	} {
		c, err := parse(row.args, os.Stderr)
		got := c.source() + " " + c.portalNet()
		if err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
}

// While the API server is away that stands beside what is wrong with its objects, and nothing is told before everything
// is known.
func TestTroubleStandsBesideProblems(t *testing.T) {
	var told []string
	n := &newsroom{tell: func(d service.Delta, err error) { told = append(told, fmt.Sprint(len(d), " ", err)) }}
	n.trouble(errors.New("away"))
	n.trouble(nil)
	one := service.Delta{{Name: "web"}: nil}
	n.change(one, errors.New("bad"))
	n.trouble(errors.New("away"))
	n.change(one, nil)
	n.trouble(nil)
	want := []string{"1 bad", "0 away\nbad", "1 away", "0 <nil>"}
	if !slices.Equal(told, want) {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, told))
	}
}
