// SPDX-License-Identifier: Apache-2.0

// Command bench measures l3edge beside its peers: both in one run, in alternation, judged by the ratio.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// suites are what -bench selects from.
var suites = map[string]func(context.Context, *report, options) error{
	"cni":    benchCNI,
	"routed": benchRouted,
	"portal": benchPortal,
}

type options struct {
	root   string // of the repository
	rounds int
	only   string // the parts whose name contains this

	peerMost int // of portal: most services that kube-proxy is started with
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	bench := flag.String("bench", "cni", "which `suite` to run: cni, routed, portal")
	rounds := flag.Int("rounds", 60, "samples per contender and figure")
	only := flag.String("only", "", "of routed and portal, run only the parts whose name contains this `text`")
	peerMost := flag.Int("peer-most", 10_000, "of portal, the most `services` that kube-proxy is asked to serve: with 30,000 it takes minutes")
	root := flag.String("root", "../..", "the repository's `folder`, with bin/ built")
	out := flag.String("json", "", "`file` for the figures (default: dist/bench-SUITE.json in the repository)")
	plain := flag.String("plain-proxy", "", "not for you: be the plain proxy from this `port,endpoint`")
	flag.Parse()
	if *plain != "" {
		return servePlainProxy(*plain)
	}
	suite, ok := suites[*bench]
	if !ok {
		return fmt.Errorf("no suite %q", *bench)
	}
	abs, err := filepath.Abs(*root)
	if err != nil {
		return err
	}
	if *out == "" {
		*out = filepath.Join(abs, "dist", "bench-"+*bench+".json")
	}
	if inside, err := enter(); err != nil || !inside {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &report{out: os.Stdout}
	fmt.Println("name: ours, peer, ratio, bar")
	return errors.Join(suite(ctx, r, options{root: abs, rounds: *rounds, only: *only, peerMost: *peerMost}), r.writeJSON(*out))
}

const marker = "L3EDGE_BENCH_INSIDE"

// enter runs this program again in namespaces of its own, so that nothing it makes outlives it or meets the machine's
// network. It returns true inside; outside it returns what came of the inner run.
func enter() (inside bool, err error) {
	if os.Getenv(marker) != "" {
		for _, dir := range []string{"/run", "/var/lib"} { // of our own: leases, netns mounts and peers' stores
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				return false, fmt.Errorf("mount tmpfs on %s: %w", dir, err)
			}
		}
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil { // with our own process numbers
			return false, fmt.Errorf("mount /proc: %w", err)
		}
		return true, nil
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		return false, fmt.Errorf("make namespaces (run as root, or allow unprivileged user namespaces): %w", err)
	}
	return false, nil
}

// goBuild builds a main package of this module's tool dependencies the fast way: without cgo, stripped.
func goBuild(ctx context.Context, dir, pkg string) error { return goBuildIn(ctx, "", dir+"/", pkg) }

// goBuildIn is goBuild of a dependency of the module in a folder.
func goBuildIn(ctx context.Context, module, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}
