// SPDX-License-Identifier: Apache-2.0

// Package nest runs the calling program again inside namespaces of its own, which the kernel takes down with it.
//
// Three processes are at work. The outer one is what the user started; it only waits. Its child is process 1 of a new
// pid, mount, network, UTS and IPC namespace (and, for anybody but root, user namespace): it mounts /proc and an empty
// /run, starts the program a third time and reaps orphans. That third, inner process does the work. Whatever happens
// to any of them (^C, a crash, kill -9), process 1 dies, and then the kernel ends every process and namespace inside.
package nest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	stageVar   = "L3EDGE_NEST" // which of the three processes this is
	stageInit  = "init"
	stageInner = "inner"

	readyVar = "L3EDGE_NEST_READY" // set when file descriptor 3 is Nest.Ready
)

// Inner is what the inner process knows of its nest.
type Inner struct {
	Ready *os.File // Nest.Ready, to report on; nil when there was none
}

// Boot must be the first thing in main. In process 1 it does not return; in the inner process it says so; elsewhere it
// returns nil. Programs that the inner process starts know nothing of it, and may make nests of their own.
func Boot() *Inner {
	switch os.Getenv(stageVar) {
	case stageInit:
		runInit()
	case stageInner:
		inner := &Inner{Ready: readyFile()}
		_ = os.Unsetenv(stageVar) // cannot fail: the names are well-formed
		_ = os.Unsetenv(readyVar)
		return inner
	}
	return nil
}

// Nest describes the program to run inside.
type Nest struct {
	Args           []string // of the calling program; Args[0] is the name it shall see
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Ready          *os.File // handed to the inner process as file descriptor 3; nil: none
	Detached       bool     // a session of its own that outlives the caller; otherwise it dies with the caller
}

// Run runs the nest until its inner process ends, passing on signals (a second one kills), and returns the exit status.
func (n Nest) Run() (int, error) {
	runtime.LockOSThread() // Pdeathsig watches the thread that started the child, not the process
	defer runtime.UnlockOSThread()
	cmd, err := n.Start()
	if err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					s = os.Kill
				}
				_ = cmd.Process.Signal(s) // it may just have ended
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(done)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return status(exit.Sys().(syscall.WaitStatus)), nil
	}
	return cmd.ProcessState.ExitCode(), err
}

// Start starts the nest. The process of the returned command is its process 1: killing it ends everything inside.
func (n Nest) Start() (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	cmd := &exec.Cmd{Path: exe, Args: n.Args, Stdin: n.Stdin, Stdout: n.Stdout, Stderr: n.Stderr}
	cmd.Env = append(os.Environ(), stageVar+"="+stageInit)
	if n.Ready != nil {
		cmd.ExtraFiles = []*os.File{n.Ready}
		cmd.Env = append(cmd.Env, readyVar+"=1")
	}
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     n.Detached,
	}
	if !n.Detached {
		attr.Pdeathsig = syscall.SIGKILL
	}
	if NeedsUserNamespace() {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make namespaces: %w\n%s", err, hint())
	}
	return cmd, nil
}

// readyFile is Nest.Ready in process 1 and in the inner process.
func readyFile() *os.File {
	if os.Getenv(readyVar) == "" {
		return nil
	}
	unix.CloseOnExec(3)
	return os.NewFile(3, "ready")
}

// NeedsUserNamespace says whether the caller lacks the rights to make the other namespaces without one.
func NeedsUserNamespace() bool { return os.Geteuid() != 0 }

// hint tells the user what stands in the way of namespaces on this machine.
func hint() string {
	if !NeedsUserNamespace() {
		return "root lacks CAP_SYS_ADMIN here: in a container, start it privileged"
	}
	for _, s := range []struct{ file, off, cure string }{
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"},
	} {
		if b, err := os.ReadFile(s.file); err == nil && strings.TrimSpace(string(b)) == s.off {
			return "this machine refuses user namespaces to ordinary users: run as root, or as root once: " + s.cure
		}
	}
	return "run as root, or on a machine that gives ordinary users user namespaces"
}
