// SPDX-License-Identifier: Apache-2.0

// Package place runs programs in the network, mount and UTS namespaces of a host or a pod, asks servers from there, and
// captures what passes.
package place

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns"
)

// Place is somewhere in the lab where a program can run: a host, or a pod on one.
type Place struct {
	Name string
	Net  *netns.Handle
	host *host
}

// host is what all places on one host share.
type host struct {
	mnt, uts *os.File
	log      string // directory of its programs' logs

	mu    sync.Mutex
	procs []*Process // all that were started here
}

// Open is the place in which the process lives. Logs of programs that are started there go into logDir.
func Open(name string, pid int, logDir string) (*Place, error) {
	ns := fmt.Sprintf("/proc/%d/ns/", pid)
	net, err1 := netns.Open(ns + "net")
	mnt, err2 := os.Open(ns + "mnt")
	uts, err3 := os.Open(ns + "uts")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Place{Name: name, Net: net, host: &host{mnt: mnt, uts: uts, log: logDir}}, nil
}

// Pod is another place on the same host: with the host's files and the network namespace that is pinned at path.
func (p *Place) Pod(name, path string) (*Place, error) {
	net, err := netns.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Place{Name: name, Net: net, host: p.host}, nil
}

// Clear kills every program that was started on this host, in whatever place of it, and lets go of its namespaces.
func (p *Place) Clear() {
	for _, proc := range p.host.procs {
		proc.Kill()
	}
	_ = p.Net.Close()
	_ = p.host.mnt.Close()
	_ = p.host.uts.Close()
}

// command prepares a program that will run here once start is called.
func (p *Place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "HOME=/root")
	return cmd
}

// start starts the program in the place's namespaces. They belong to threads, and a child inherits those of the thread
// that forks it: so this happens on a thread of its own, which the runtime destroys with its goroutine.
func (p *Place) start(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread must die in here
		done <- func() error {
			if err := unix.Setns(p.Net.Fd(), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter network namespace: %w", err)
			}
			if err := unix.Unshare(unix.CLONE_FS); err != nil { // threads share a root directory, mount namespaces forbid that
				return fmt.Errorf("unshare file system state: %w", err)
			}
			if err := unix.Setns(int(p.host.mnt.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter mount namespace: %w", err)
			}
			if err := unix.Setns(int(p.host.uts.Fd()), unix.CLONE_NEWUTS); err != nil {
				return fmt.Errorf("enter UTS namespace: %w", err)
			}
			return cmd.Start()
		}()
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("%s: start %s: %w", p.Name, filepath.Base(cmd.Path), err)
	}
	return nil
}

// Run runs a program here and returns what it wrote. A failure carries its standard error.
func (p *Place) Run(name string, args ...string) (string, error) {
	return p.RunInput("", name, args...)
}

// RunInput is Run with text on the program's standard input.
func (p *Place) RunInput(stdin, name string, args ...string) (string, error) {
	cmd := p.command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := p.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s: %s %s: %w\n%s", p.Name, name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Process is a program that was started in a place and keeps running.
type Process struct {
	Name    string // what its log is called
	Command string // as a shell would be told
	LogPath string
	cmd     *exec.Cmd
	done    chan struct{} // closed at its end
	err     error         // of Wait; read after done
}

// Start starts a program that keeps running, its output appended to NAME.log.
func (p *Place) Start(logName, name string, args ...string) (*Process, error) {
	return p.StartEnv(nil, logName, name, args...)
}

// StartEnv is Start with variables added to the environment.
func (p *Place) StartEnv(env []string, logName, name string, args ...string) (*Process, error) {
	cmd := p.command(name, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // ^C in the terminal is for the lab to handle, not for its daemons
	proc := &Process{Name: logName, Command: strings.Join(append([]string{name}, args...), " "), LogPath: filepath.Join(p.host.log, logName+".log"), cmd: cmd, done: make(chan struct{})}
	log, err := os.OpenFile(proc.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%s: log of %s: %w", p.Name, logName, err)
	}
	defer log.Close() //nolint:errcheck // the child has it
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.start(cmd); err != nil {
		return nil, err
	}
	go func() {
		proc.err = cmd.Wait()
		close(proc.done)
	}()
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.host.procs = append(p.host.procs, proc)
	return proc, nil
}

// Pid is the process's number inside the nest.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log is all that the program wrote so far, over restarts.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Running says whether the process is alive; when not, the error says how it ended.
func (p *Process) Running() (bool, error) {
	select {
	case <-p.done:
		if p.err == nil {
			return false, fmt.Errorf("%s ended with status 0", p.Name)
		}
		return false, fmt.Errorf("%s ended: %w\n%s", p.Name, p.err, LastLines(p.Log(), 12))
	default:
		return true, nil
	}
}

// Stop asks the process to end (SIGTERM) and waits; after five seconds it is killed, which is an error.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
		return nil
	case <-time.After(5 * time.Second):
		p.Kill()
		return fmt.Errorf("%s did not end within 5 s of SIGTERM", p.Name)
	}
}

// Kill ends the process at once (SIGKILL) and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// Dial opens a connection from here. addr must be a literal address: names are resolved elsewhere.
func (p *Place) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	if e := p.Net.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return nil
	}); e != nil {
		return nil, e
	}
	return conn, err
}

// Get fetches http://addr/path from here over a new connection, giving up after two seconds.
func (p *Place) Get(addr, path string) (string, error) { return p.get(addr, path, 2*time.Second) }

// Reaches says within a quarter of a second whether anybody answers at addr: for polling, and to see that nobody does.
func (p *Place) Reaches(addr string) error {
	_, err := p.get(addr, "/", 250*time.Millisecond)
	return err
}

func (p *Place) get(addr, path string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: p.Dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("from %s: %w", p.Name, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return "", fmt.Errorf("from %s: %s: %w", p.Name, addr, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("from %s: %s: %s", p.Name, addr, resp.Status)
	}
	return string(body), nil
}

// Eventually polls f, at first often, until it returns nil; after the limit it returns f's last error.
func Eventually(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(wait)
	}
}

// LastLines are the last n lines of a text.
func LastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
