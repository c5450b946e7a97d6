// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
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

// TestDelLeavesHostLocalsFilesOfALivingPod: another network that host-local serves still is there beside ours.
func TestDelLeavesHostLocalsFilesOfALivingPod(t *testing.T) {
	for _, row := range []struct{ name, pod, file, want string }{
		{"it has the address", "ip link add eth0 type veth peer name x; ip addr add 10.10.10.7/24 dev eth0", "10.10.10.7", "10.10.10.7"},
		{"of another subnet", "true", "10.77.0.7", "10.77.0.7"},
		{"it has none any more", "true", "10.10.10.7", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLab(t, subnet4)
			left := l.hostLocals(filepath.Join(l.leases, "../hostlocal/hl"), map[string]string{row.file: "a\r\neth0"})
			p := l.pod("a")
			nstest.Sh(t, p.ns, row.pod)
			l.must("DEL", p)
			if left() != row.want {
				t.Errorf("left %q, want %q", left(), row.want)
			}
		})
	}
}

// TestDelOfOursDoesNotReadHostLocals: neither what is wrong there, nor how much there is, matters to a pod that an ADD of ours made.
func TestDelOfOursDoesNotReadHostLocals(t *testing.T) {
	l := newLab(t, subnet4)
	dir := filepath.Join(l.leases, "../hostlocal")
	left := l.hostLocals(filepath.Join(dir, "net"), map[string]string{"10.10.10.9": "a\r\neth0"})
	p := l.pod("a")
	l.add(p)
	p.result = nil
	l.must("DEL", p)
	if left() == "" || l.left() != "" {
		t.Errorf("host-local's %q, ours %q", left(), l.left())
	}
}

// TestDelInSpiteOfWhatIsWrongAtHostLocals: it is told, and no more.
func TestDelInSpiteOfWhatIsWrongAtHostLocals(t *testing.T) {
	l := newLab(t, subnet4)
	dir := filepath.Join(l.leases, "../hostlocal")
	left := l.hostLocals(filepath.Join(dir, "net"), map[string]string{"10.10.10.9": "old\r\neth0"})
	for name, to := range map[string]string{"loop": "loop", "10.10.10.8": "10.10.10.8", "long": strings.Repeat("x", 300)} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := l.pod("old")
	l.hostLocals(filepath.Join(l.leases, "net/by-owner"), map[string]string{"old@eth0": `{"containerID":"old","ifname":"eth0"}`})
	l.must("DEL", p)
	if left() != "" || l.left() != "" {
		t.Errorf("host-local's %q, ours %q", left(), l.left())
	}
}
