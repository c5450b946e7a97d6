// SPDX-License-Identifier: Apache-2.0

// Package nstest gives tests network namespaces of their own, as root or, through a user namespace, without.
package nstest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/l3edge/l3edge/pkg/edge/netns"
)

const marker = "L3EDGE_NSTEST"

// Main is for TestMain: it runs the tests in a user (when not root), mount and network namespace of their own with an
// empty /run and loopback up, so that neither a crash nor a mistake reaches the machine. It does not return.
func Main(m *testing.M) {
	if os.Getenv(marker) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "nstest:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "nstest: cannot make namespaces; run as root or allow unprivileged user namespaces:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// furnish gives the namespaces that Main made what a host has.
func furnish() error {
	if err := syscall.Mount("run", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// New makes a namespace with loopback up that goes when the test ends.
func New(t testing.TB) *netns.Handle {
	t.Helper()
	h, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	Do(t, h, loopbackUp)
	return h
}

// Do runs f in the namespace and fails the test on error.
func Do(t testing.TB, h *netns.Handle, f func() error) {
	t.Helper()
	if err := h.Do(f); err != nil {
		t.Fatal(err)
	}
}

// Run runs a program in the namespace and returns its output, failing the test on a non-zero exit.
func Run(t testing.TB, h *netns.Handle, name string, args ...string) string {
	t.Helper()
	var out []byte
	err := h.Do(func() error {
		var err error
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Sh runs shell lines in the namespace, stopping at the first that fails.
func Sh(t testing.TB, h *netns.Handle, script string) string {
	t.Helper()
	return Run(t, h, "sh", "-ec", script)
}

// Veth joins two namespaces by a pair with the given names and addresses ("10.0.0.1/24"; empty: none), both ends up.
func Veth(t testing.TB, a *netns.Handle, nameA, addrA string, b *netns.Handle, nameB, addrB string) {
	t.Helper()
	Do(t, a, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.Fd()),
		})
	})
	for _, end := range []struct {
		h          *netns.Handle
		name, addr string
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		Do(t, end.h, func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return err
			}
			if end.addr != "" {
				addr, err := netlink.ParseAddr(end.addr)
				if err != nil {
					return err
				}
				if err := netlink.AddrAdd(l, addr); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(l)
		})
	}
}
