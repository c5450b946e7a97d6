// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/node"
	"github.com/l3edge/l3edge/pkg/edge/lease"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/edge/nodefile"
)

// TestAddWhoseRuntimeIsGoneLeavesNothing: nobody reads its result, nor what it says on standard error.
func TestAddWhoseRuntimeIsGoneLeavesNothing(t *testing.T) {
	for name, keys := range map[string]string{"plain": subnet4, "bound": subnet4 + `,"sourceCheck":true`} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, keys)
			p := l.pod("a")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			defer w.Close() //nolint:errcheck // a test
			cmd := exec.Command(l.self)
			cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=a", "CNI_NETNS=" + p.ns.Path(), "CNI_IFNAME=eth0"}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(l.config(p)), w, w
			err = l.node.Do(cmd.Run)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("it ended with %v, want exit status 1", err)
			}
			if left := l.left(); left != "" {
				t.Errorf("left: %s", left)
			}
			if out := nstest.Run(t, p.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
				t.Errorf("the pod has:\n%s", out)
			}
		})
	}
}

// TestAddThatIsOvertakenLeavesNothing: it has opened the namespace, and stalls; its runtime is killed and comes back, does
// DEL and removes the namespace.
func TestAddThatIsOvertakenLeavesNothing(t *testing.T) {
	l := newLab(t, subnet4)
	p := l.pod("a")
	path := filepath.Join(t.TempDir(), "netns")
	if err := p.ns.Mount(path); err != nil {
		t.Fatal(err)
	}
	store := lease.At(filepath.Join(l.leases, "net"))
	held, err := store.Begin(lease.Record{Owner: lease.Owner{ContainerID: "a", IfName: "eth0"}}) // what it stalls at
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(l.self)
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=a", "CNI_NETNS=" + path, "CNI_IFNAME=eth0"}
	cmd.Stdin, cmd.Stdout = strings.NewReader(l.config(p)), &out
	if err := l.node.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	opened := func() bool {
		fds, _ := filepath.Glob("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/fd/*")
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.HasSuffix(to, "/by-owner/a@eth0") {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(10 * time.Second); !opened(); {
		if time.Now().After(deadline) {
			t.Fatal("the ADD does not come as far as its lease")
		}
	}
	if err := errors.Join(netns.Unmount(path), held.Release(nil)); err != nil {
		t.Fatal(err)
	}
	held.Close()
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "went away during the ADD") {
		t.Errorf("it ended with %v: %s", err, &out)
	}
	if left := l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestAddThatWaitsHoldsItsNamespace: so its number is nobody else's meanwhile, and a DEL that overtakes it is noticed.
func TestAddThatWaitsHoldsItsNamespace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.json")
	l := newLab(t, fmt.Sprintf(`"nodeFile":%q`, file))
	p := l.pod("a")
	path := filepath.Join(t.TempDir(), "netns")
	if err := p.ns.Mount(path); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(l.self)
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=a", "CNI_NETNS=" + path, "CNI_IFNAME=eth0", "BRIDGE_TEST_HOSTPORTS=" + l.ports()}
	cmd.Stdin, cmd.Stdout = strings.NewReader(l.config(p)), &out
	if err := l.node.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	holds := func() bool {
		fds, _ := filepath.Glob("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/fd/*")
		return slices.ContainsFunc(fds, func(fd string) bool { to, _ := os.Readlink(fd); return to == path })
	}
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("the ADD waits without its namespace: %v: %s", cmd.Wait(), &out)
		}
	}
	if err := errors.Join(netns.Unmount(path), nstest.New(t).Mount(path)); err != nil {
		t.Fatal(err)
	}
	if err := nodefile.Write(file, node.Node{Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "went away during the ADD") {
		t.Errorf("it ended with %v: %s", err, &out)
	}
	if err := netns.Unmount(path); err != nil {
		t.Error(err)
	}
	if left := l.left(); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestForgottenLeasesServeWhenThePoolIsFull: those of pods that have no link any more, and no others.
func TestForgottenLeasesServeWhenThePoolIsFull(t *testing.T) {
	l := newLab(t, `"subnet":"10.0.0.0/30","sourceCheck":true`) // one pod
	a, b, c := l.pod("a"), l.pod("b"), l.pod("c")
	port := l.add(a).Interfaces[1].Name
	age := func(id string) {
		t.Helper()
		long := time.Now().Add(-2 * forgotten)
		if err := os.Chtimes(filepath.Join(l.leases, "net", "by-owner", id+"@eth0"), long, long); err != nil {
			t.Fatal(err)
		}
	}
	full := func(why string) {
		t.Helper()
		t.Log(why)
		l.refused("ADD", b, 101, "1 addresses in use")
		l.refused("STATUS", &pod{}, 50, "is full")
	}
	age("a")
	full("the pod lives")
	nstest.Run(t, l.node, "ip", "link", "del", port)
	record := filepath.Join(l.ports(), "net", "a:eth0")
	if err := errors.Join(os.MkdirAll(filepath.Dir(record), 0o755), os.WriteFile(record, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	full("its hostPorts lead to the address still")
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	young := time.Now()
	if err := os.Chtimes(filepath.Join(l.leases, "net", "by-owner", "a@eth0"), young, young); err != nil {
		t.Fatal(err)
	}
	full("it has just gone, or is just coming")
	age("a")
	l.must("STATUS", &pod{})
	if left := l.left(); left != "" {
		t.Errorf("left after STATUS: %s", left)
	}
	if out := nstest.Run(t, l.node, "nft", "list", "ruleset"); strings.Contains(out, port) {
		t.Errorf("the port of the pod that is gone is bound:\n%s", out)
	}
	port = l.add(b).Interfaces[1].Name
	nstest.Run(t, l.node, "ip", "link", "del", port)
	age("b")
	l.add(c)
	l.must("DEL", b) // which comes late, and takes nothing of c's
	l.must("CHECK", c)
	l.must("DEL", c)

	imported, err := lease.At(filepath.Join(l.leases, "net")).Begin(lease.Record{Owner: lease.Owner{ContainerID: "imported", IfName: "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := imported.Take(netip.MustParseAddr("10.0.0.2")); err != nil {
		t.Fatal(err)
	}
	imported.Close()
	age("imported")
	full("another plugin made its link, under a name that is not known")
}
