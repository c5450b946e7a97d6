// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// One directory may hold host-local's files and our leases: ipam.dataDir is a key of both.
func TestForeignFilesAreReadByWhatTheySay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	s := At(dir)
	write(t, dir, map[string]string{
		"10.0.0.4": "4ab0\r\neth0", "10.0.0.5": "4ab0", "fd00::7": "4ab0\r\nnet1\r\n", "10.0.0.8": "", "10.0.0.9": "no container\r\neth0",
		"10.0.0.10": `{"containerID":"b`, "last_reserved_ip.0": "10.0.0.5", "lock": "",
	})
	next(t, begin(t, s, "ours"), set(t, "10.0.0.0/24"))
	if err := os.Mkdir(filepath.Join(dir, "10.0.0.11"), 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := s.Foreign()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range all {
		got = append(got, strings.Join([]string{f.Addr.String(), f.ContainerID, f.IfName, f.Problem}, "|"))
		if f.Since.IsZero() {
			t.Errorf("%s: since when?", f.Addr)
		}
	}
	want := []string{
		"10.0.0.4|4ab0|eth0|", "10.0.0.5|4ab0||",
		"10.0.0.8|||the file is empty, as a crash of host-local leaves it: nobody can tell whose the address is",
		`10.0.0.9|||the file says "no container\r\neth0", which names no container`,
		`10.0.0.10|||the file says "{\"containerID\":\"b", which names no container`,
		"10.0.0.11|||read " + dir + "/10.0.0.11: is a directory", "fd00::7|4ab0|net1|",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	some, err := s.ForeignIn(func(a netip.Addr) bool { return a.Is6() })
	at := s.ForeignAt([]netip.Addr{netip.MustParseAddr("fd00::7"), netip.MustParseAddr("fd00::8")})
	if err != nil || len(some) != 1 || !cmp.Equal(some, all[len(all)-1:], cmpAddr) || !cmp.Equal(at, some, cmpAddr) {
		t.Errorf("of one family: %+v, %v; at one address: %+v", some, err, at)
	}
}

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestDropForeignNeedsNoAddresses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	s := At(dir)
	write(t, dir, map[string]string{
		"10.0.0.4": "a\r\neth0", "10.0.0.5": "a\r\nnet1", "10.0.0.6": "b\r\neth0", "10.0.0.7": "a", "10.0.0.8": "", "lock": "",
	})
	next(t, begin(t, s, "a"), set(t, "10.0.0.0/24")) // of the same name, but ours: it goes by Release
	if err := s.DropForeign(Owner{"a", "eth0"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.2", "10.0.0.5", "10.0.0.6", "10.0.0.8", "by-owner/a@eth0", "lock"}
	if d := cmp.Diff(want, names(t, dir)); d != "" {
		t.Errorf("left (-want +got):\n%s", d)
	}
	if err := At(dir + "/none").DropForeign(Owner{"a", "eth0"}); err != nil {
		t.Errorf("of a directory that is not there: %v", err)
	}
}
