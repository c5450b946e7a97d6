// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// killAt runs a verb and kills it with signal 9 when it enters or leaves its n-th system call. It returns how many such
// moments there were, and whether the verb came to its end before the n-th.
func (l *lab) killAt(command string, p *pod, n int) (moments int, finished bool) {
	l.t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := w.WriteString(l.config(p)); err != nil {
		l.t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = errors.Join(in.Close(), null.Close()) }()
	err = errors.Join(w.Close(), l.node.Do(func() error {
		attr := &os.ProcAttr{
			Env:   []string{"GOMAXPROCS=1", "CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.ns.Path(), "CNI_IFNAME=eth0"},
			Files: []*os.File{in, null, null}, Sys: &syscall.SysProcAttr{Ptrace: true},
		}
		proc, err := os.StartProcess(l.self, []string{"bridge-l3"}, attr)
		if err != nil {
			return err
		}
		moments, finished, err = trace(proc.Pid, n)
		return err
	}))
	if err != nil {
		l.t.Fatal(err)
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

// TestKillNineAtEverySystemCall kills ADD and DEL at each system call, and then does what a runtime does: DEL, or ADD
// again, or GC. Nothing may be left, no address lost, none given twice.
func TestKillNineAtEverySystemCall(t *testing.T) {
	l := newLab(t, `"subnet":"10.0.0.0/29"`) // five pods
	other := l.pod("other")
	l.add(other)
	p := l.pod("a")
	moments, finished := l.killAt("ADD", p, -1)
	l.must("DEL", p)
	if !finished || moments < 100 {
		t.Fatalf("an ADD has %d moments, finished: %t", moments, finished)
	}
	const start, step = 2, 2 // from two fifths on: before, the Go runtime talks to itself; entering and leaving are alike
	halfWay := 0
	for n, how := moments*start/5, 0; ; n, how = n+step, how+1 {
		_, finished := l.killAt("ADD", p, n)
		if !finished && len(strings.Fields(l.left())) != 3 {
			halfWay++
		}
		l.recover(p, n, how%3)
		if finished {
			break
		}
	}
	if halfWay < 10 {
		t.Errorf("only %d of the killed ADDs had begun: the test looks at the wrong moments", halfWay)
	}
	l.add(p)
	total, _ := l.killAt("DEL", p, -1)
	for n, how := total*start/5, 0; ; n, how = n+step, how+1 {
		p.result = nil
		l.add(p)
		_, finished := l.killAt("DEL", p, n)
		l.recover(p, n, 2*(how%2))
		if finished {
			break
		}
	}
	l.must("CHECK", other)
	for i := range 4 {
		l.add(l.pod(fmt.Sprint("full-", i)))
	}
}

// recover does what may come after a kill: 0 DEL, 1 ADD again and DEL, 2 GC.
func (l *lab) recover(p *pod, n, how int) {
	l.t.Helper()
	p.result = nil
	switch how {
	case 1:
		out, err := l.call("ADD", p)
		if err == nil {
			p.result = out
			l.must("CHECK", p)
		} else if !strings.Contains(err.Error(), "attached by eth0 already") {
			l.t.Fatalf("ADD after a kill at %d: %v", n, err)
		}
		l.must("DEL", p)
	case 2:
		l.must("GC", &pod{id: "x", extra: `"cni.dev/valid-attachments":[{"containerID":"other","ifname":"eth0"}]`})
	default:
		l.must("DEL", p)
	}
	p.result = nil
	if left := strings.Fields(l.left()); len(left) != 3 { // the other pod's port and its two files
		l.t.Fatalf("after a kill at %d and recovery %d: %v", n, how, left)
	}
	if out := nstest.Run(l.t, p.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
		l.t.Fatalf("after a kill at %d and recovery %d the pod has:\n%s", n, how, out)
	}
}
