// SPDX-License-Identifier: Apache-2.0

package mend

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/ipam"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/edge/lease"
)

// hostLocals writes a directory of host-local.
func hostLocals(t *testing.T, dir string, texts map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// printed is what import-host-local says, a line each.
func printed(fates []ipam.Fate, notes []string) []string {
	var out bytes.Buffer
	printFates(&out, fates, notes, false)
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

// Files that say nothing are named, and keep no other from being taken over.
func TestImportTakesAllThatItCan(t *testing.T) {
	dir, store := t.TempDir(), t.TempDir()
	long := strings.Repeat("x", 300)
	hostLocals(t, filepath.Join(dir, "mynet"), map[string]string{
		"10.88.1.2": "a\r\neth0", "10.88.1.3": "", "10.88.1.4": "not a container", "10.88.1.5": long + "\r\neth0", "10.88.1.6": "b", "10.88.1.7": "c\r\neth0", "lock": "",
	})
	n := view.Network{Name: "l3edge", DataDir: store}
	other, err := lease.At(filepath.Join(store, "l3edge")).Begin(lease.Record{Owner: lease.Owner{ContainerID: "z", IfName: "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Take(netip.MustParseAddr("10.88.1.7")); err != nil {
		t.Fatal(err)
	}
	take := takeover{dir: dir, network: "l3edge", from: "mynet"}
	for range 2 { // a second time changes nothing
		fates, notes, err := take.run(view.Host{}, n)
		if err != nil {
			t.Fatal(err)
		}
		fails := 0
		for _, f := range fates {
			if f.Fails() {
				fails++
			}
		}
		if got := strings.Join(printed(fates, notes), "\n"); fails != 4 || strings.Count(got, "NOT TAKEN OVER: ") != 3 ||
			!strings.Contains(got, "10.88.1.7\tcontainer c\tCONFLICT: 10.88.1.7 is leased to interface eth0 (container z)") ||
			!strings.Contains(got, "10.88.1.3\t-\tNOT TAKEN OVER: the file is empty") {
			t.Errorf("%d fail:\n%s", fails, got)
		}
	}
	all, err := leased(t, n)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"10.88.1.2 a eth0", "10.88.1.6 b eth0", "10.88.1.7 z eth0"}, all); d != "" {
		t.Errorf("leases (-want +got):\n%s", d)
	}
}

func leased(t *testing.T, n view.Network) (out []string, err error) {
	t.Helper()
	entries, err := lease.At(filepath.Join(n.DataDir, n.Name)).List()
	for _, e := range entries {
		out = append(out, e.Addr.String()+" "+e.ContainerID+" "+e.IfName)
	}
	return out, err
}

func TestDryRunTakesNothing(t *testing.T) {
	dir, store := t.TempDir(), t.TempDir()
	hostLocals(t, filepath.Join(dir, "l3edge"), map[string]string{"10.88.1.2": "a\r\neth0"})
	n := view.Network{Name: "l3edge", DataDir: store}
	fates, _, err := takeover{dir: dir, dry: true}.run(view.Host{}, n)
	if all, lerr := leased(t, n); err != nil || lerr != nil || len(fates) != 1 || len(all) != 0 {
		t.Errorf("%v, %v, %v, %v", fates, err, all, lerr)
	}
}

// Where ipam.dataDir stays, our leases lie among host-local's files, and neither is taken for the other's.
func TestImportOfOurOwnDirectoryIsNothing(t *testing.T) {
	dir := t.TempDir()
	hostLocals(t, filepath.Join(dir, "l3edge"), map[string]string{"10.88.1.2": "a\r\neth0", "10.88.1.3": `{"containerID":"b","ifname":"eth0"}`})
	fates, notes, err := takeover{dir: dir}.run(view.Host{}, view.Network{Name: "l3edge", DataDir: dir})
	if err != nil || len(fates) != 0 || len(notes) != 1 || !strings.Contains(notes[0], "gives no address that a file there holds") {
		t.Errorf("%v, %v, %v", fates, notes, err)
	}
}

// Before the new configuration list is there, its name has to be said; and must be, so that nothing is passed over in silence.
func TestWhichNetworksAreImported(t *testing.T) {
	dir := t.TempDir()
	hostLocals(t, filepath.Join(dir, "mynet"), map[string]string{"10.88.1.2": "a\r\neth0", "10.88.1.3": "b\r\neth0", "lock": ""})
	hostLocals(t, filepath.Join(dir, "empty"), map[string]string{"lock": ""})
	ours := view.Host{Networks: []view.Network{
		{Name: "l3edge", Plugins: []string{"bridge-l3", "portal"}, DataDir: "/x"}, {Name: "other", Plugins: []string{"bridge", "portal"}},
		{Name: "dhcp", Plugins: []string{"bridge-l3"}, Delegate: "dhcp"},
	}}
	for _, row := range []struct {
		what          string
		host          view.Host
		network, from string
		want, err     string
	}{
		{"those whose addresses are ours to give", ours, "", "", "l3edge /x", ""},
		{"one that is there", ours, "l3edge", "mynet", "l3edge /x", ""},
		{"one that is still the reference plugin's", ours, "other", "", "other ", ""},
		{"one that is not there yet", view.Host{}, "new", "mynet", "new ", ""},
		{"none, with nothing of ours", view.Host{}, "", "", "", "say --network, the name that yours will have; host-local holds addresses of mynet (2)"},
		{"from where, and not to where", ours, "", "mynet", "", "--from: needs --network"},
		{"a name that is none", ours, "../x", "", "", `--network: "../x" is not the name of a network`},
	} {
		t.Run(row.what, func(t *testing.T) {
			ns, err := takeover{dir: dir, network: row.network, from: row.from}.networks(row.host)
			got := ""
			for _, n := range ns {
				got += n.Name + " " + n.DataDir
			}
			if got != row.want || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
