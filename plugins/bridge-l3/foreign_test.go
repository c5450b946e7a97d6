// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostLocals writes files of host-local and returns what is left of them.
func (l *lab) hostLocals(dir string, files map[string]string) (left func() string) {
	l.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	return func() string {
		var out []string
		for name := range files {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				out = append(out, name)
			}
		}
		return strings.Join(out, " ")
	}
}

// A node that comes from host-local has its files, in host-local's directory or in ours. Whoever they are of is told by what
// they say: runtimes send DEL without a result of ADD, and GC.
func TestFilesOfHostLocalGoWithTheirPods(t *testing.T) {
	for _, row := range []struct{ where, dir string }{{"in host-local's directory", "../hostlocal/net"}, {"beside our leases", "net"}} {
		t.Run(row.where, func(t *testing.T) {
			l := newLab(t, subnet4)
			dir := filepath.Join(l.leases, row.dir)
			left := l.hostLocals(dir, map[string]string{"10.10.10.7": "old\r\neth0", "fd00::7": "old\r\neth0", "10.10.10.8": "old"})
			other := l.hostLocals(dir, map[string]string{"10.10.10.9": "living\r\neth0"})
			l.must("DEL", l.pod("old"))
			if left() != "" || other() != "10.10.10.9" {
				t.Errorf("after DEL without a result: %q of the pod, %q of another", left(), other())
			}
			left = l.hostLocals(dir, map[string]string{"10.10.10.7": "gone\r\neth0", "10.10.10.8": "gone"})
			keep := &pod{id: "ignored", extra: `"cni.dev/valid-attachments":[{"containerID":"living","ifname":"eth0"}]`}
			l.must("GC", keep)
			if left() != "" || other() != "10.10.10.9" {
				t.Errorf("after GC: %q of garbage, %q of a living pod", left(), other())
			}
		})
	}
}

// A lease that was imported, and the file that it was imported from, are one pod's.
func TestAnImportedPodGoesWhole(t *testing.T) {
	l := newLab(t, subnet4)
	left := l.hostLocals(filepath.Join(l.leases, "../hostlocal/net"), map[string]string{"10.10.10.7": "old\r\neth0"})
	l.hostLocals(filepath.Join(l.leases, "net/by-owner"), map[string]string{"old@eth0": `{"containerID":"old","ifname":"eth0"}`})
	l.must("DEL", l.pod("old"))
	if left() != "" || l.left() != "" {
		t.Errorf("after DEL: %q and %q", left(), l.left())
	}
}
