// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// killAt runs a verb and kills it with signal 9 when it enters or leaves its n-th system call. It returns how many such
// moments there were, and whether the verb came to its end before the n-th.
func (w *world) killAt(command, pod, config string, n int) (moments int, finished bool) {
	w.t.Helper()
	in, pipe, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := pipe.WriteString(w.stdin(config)); err != nil {
		w.t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = errors.Join(in.Close(), null.Close()) }()
	err = errors.Join(pipe.Close(), w.node.Do(func() error {
		proc, err := os.StartProcess(w.self(), []string{"portal"}, &os.ProcAttr{
			Env:   append(w.env(command, pod), "GOMAXPROCS=1"),
			Files: []*os.File{in, null, null}, Sys: &syscall.SysProcAttr{Ptrace: true},
		})
		if err != nil {
			return err
		}
		moments, finished, err = trace(proc.Pid, n)
		return err
	}))
	if err != nil {
		w.t.Fatal(err)
	}
	return moments, finished
}

// trace follows every thread of pid from system call to system call (ptrace(2)); it must run on the thread that started it.
func trace(pid, n int) (moments int, finished bool, err error) {
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		return 0, false, err
	}
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		return 0, false, err
	}
	finished = true
	for tid := pid; ; {
		if err := syscall.PtraceSyscall(tid, 0); err != nil && !errors.Is(err, syscall.ESRCH) {
			return moments, finished, err
		}
	wait:
		if tid, err = syscall.Wait4(-1, &ws, unix.WALL, nil); err != nil {
			return moments, finished, err
		}
		switch {
		case ws.Exited() || ws.Signaled():
			if tid == pid {
				return moments, finished, nil
			}
			goto wait // a thread has ended; the others run
		case ws.StopSignal() == syscall.SIGTRAP|0x80:
			if moments++; moments == n {
				finished = false
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					return moments, finished, err
				}
			}
		}
	}
}

// left are the elements of the tables and the records, of whomever.
func (w *world) left() (out []string) {
	w.t.Helper()
	for line := range strings.Lines(nstest.Sh(w.t, w.node, "nft list table ip l3edge_hostports")) {
		if _, list, ok := strings.Cut(line, "elements = {"); ok || strings.HasPrefix(line, "\t\t\t ") {
			if !ok {
				list = line
			}
			for e := range strings.SplitSeq(list, ",") {
				if e = strings.Trim(e, " \t\n}"); e != "" {
					out = append(out, e)
				}
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(w.records, "*", "*"))
	hidden, herr := filepath.Glob(filepath.Join(w.records, "*", ".*"))
	if err := errors.Join(err, herr); err != nil {
		w.t.Fatal(err)
	}
	for _, f := range append(files, hidden...) {
		out = append(out, filepath.Base(f))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestKillNineAtEverySystemCall kills ADD and DEL at each system call, and then does what a runtime does: DEL, or ADD
// again, or GC. Nothing may be left, and no port of another pod be touched.
func TestKillNineAtEverySystemCall(t *testing.T) {
	w := newWorld(t)
	const tcp8080 = `{"hostPort":8080,"containerPort":80}`
	w.must("ADD", "other", ports(tcp8080)+withPrev("other"))
	others := w.left()
	if len(others) != 3 {
		t.Fatalf("of one pod with one port there is %q, want its port, its address and its record", others)
	}
	config := ports(web80) + withPrev("web")
	// From two fifths on: before, the Go runtime talks to itself; entering and leaving a system call are alike.
	for _, command := range []string{"ADD", "DEL"} {
		total := math.MaxInt
		for range 4 { // the fewest count: on a busy machine the runtime's threads wake up more often
			if command == "DEL" {
				w.must("ADD", "web", config)
			}
			moments, finished := w.killAt(command, "web", config, -1)
			if !finished || moments < 100 {
				t.Fatalf("%s has %d moments, finished: %t", command, moments, finished)
			}
			total = min(total, moments)
			w.must("DEL", "web", "")
		}
		halfWay := 0
		for n, how := total*2/5, 0; ; n, how = n+2, how+1 {
			if command == "DEL" {
				w.must("ADD", "web", config)
			}
			_, finished := w.killAt(command, "web", config, n)
			switch now := w.left(); {
			case finished:
			case command == "ADD" && !slices.Equal(now, others), command == "DEL" && len(now) < len(others)+4:
				halfWay++
			}
			w.recover(config, how%3)
			if d := cmp.Diff(others, w.left()); d != "" {
				t.Fatalf("%s killed at moment %d of %d, then recovery %d (-want +got):\n%s", command, n, total, how%3, d)
			}
			if finished {
				break
			}
		}
		if halfWay == 0 { // how many there are depends on how often the runtime's own threads wake up meanwhile
			t.Errorf("none of the killed %ss had begun: the test looks at the wrong moments", command)
		}
	}
	w.must("CHECK", "other", ports(tcp8080)+withPrev("other"))
	w.must("ADD", "other/2", ports(web80)+withPrev("other")) // the ports are free for others
}

// recover does what may come after a kill: 0 DEL, 1 ADD again and DEL, 2 GC.
func (w *world) recover(config string, how int) {
	w.t.Helper()
	switch how {
	case 1:
		w.must("ADD", "web", config)
		w.must("CHECK", "web", config)
		w.must("DEL", "web", config)
	case 2:
		w.must("GC", "", `,"cni.dev/valid-attachments":[{"containerID":"id-other","ifname":"eth0"}]`)
	default:
		w.must("DEL", "web", "")
	}
}

// TestAddWhoseRuntimeIsGoneLeavesNothing: nobody reads its result any more, and a DEL has been before it.
func TestAddWhoseRuntimeIsGoneLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.must("ADD", "other", ports(`{"hostPort":81,"containerPort":80}`)+withPrev("other"))
	before := w.left()
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // a test
	cmd := exec.Command(w.self())
	cmd.Env, cmd.Stdin = w.env("ADD", "web"), strings.NewReader(w.stdin(ports(web80)+withPrev("web")))
	cmd.Stdout, cmd.Stderr = out, out
	var exit *exec.ExitError
	if err := w.node.Do(cmd.Run); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want exit status 1", err)
	}
	if left := w.left(); !slices.Equal(left, before) {
		t.Errorf("left %q, want %q", left, before)
	}
}
