// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/attach"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

var everyCall = flag.Bool("every", false, "kill on leaving system calls too, and at those that change nothing outside of the process")

// inward are system calls that nobody else can notice: a process killed at one of them leaves what it would have left at
// the call before. A call that is not here counts, so forgetting one costs time and nothing else.
var inward = []uint64{
	unix.SYS_FUTEX, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MPROTECT, unix.SYS_BRK, unix.SYS_RT_SIGACTION,
	unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_NANOSLEEP, unix.SYS_SCHED_YIELD,
	unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_READ, unix.SYS_FCNTL, unix.SYS_EPOLL_CREATE1,
	unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_GETRANDOM, unix.SYS_PRLIMIT64, unix.SYS_TGKILL, unix.SYS_FSTAT,
}

// killAt runs a verb and kills it with signal 9 as it enters its n-th system call that others may notice, which the kernel
// then does not carry out. On leaving a call it would leave the same as on entering the next. It returns how many such
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
		if tid, err = syscall.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil); err != nil {
			return moments, finished, err
		}
		switch {
		case ws.Exited() || ws.Signaled():
			if tid == pid {
				return moments, finished, nil
			}
			goto wait // a thread has ended; the others run
		case ws.StopSignal() == syscall.SIGTRAP|0x80:
			call, entering := stoppedIn(tid)
			if !*everyCall && (!entering || slices.Contains(inward, call)) {
				continue
			}
			if moments++; moments == n {
				finished = false
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					return moments, finished, err
				}
			}
		}
	}
}

// stoppedIn asks which system call a thread is about to make (PTRACE_GET_SYSCALL_INFO: op at 0, 1 is entry; number at 24).
func stoppedIn(tid int) (call uint64, entering bool) {
	const getSyscallInfo, size = 0x420e, 88
	var info [size / 8]uint64
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), size, uintptr(unsafe.Pointer(&info)), 0, 0)
	return info[3], errno == 0 && info[0]&0xff == 1
}

// TestKillNineAtEverySystemCall kills ADD and DEL at each system call, and then does what a runtime does: DEL, or ADD again, or GC. Nothing may be left, no address lost, none given twice.
func TestKillNineAtEverySystemCall(t *testing.T) {
	for name, keys := range map[string]string{"plain": "", "with all that ADD can make": `,"sourceCheck":true,"localRouting":"routed","runtimeConfig":{"mac":"02:00:00:00:00:07"}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()                                                                           // each on a thread of its own, which waits for its own children only
			l := newLab(t, `"ranges":[[{"subnet":"10.0.0.0/29"}],[{"subnet":"fd00::/125"}]]`+keys) // five pods, six
			other := l.pod("other")
			l.add(other)
			p, before := l.pod("a"), l.left()
			halfWay := 0
			n := 1
			for ; ; n++ {
				_, finished := l.killAt("ADD", p, n)
				if !finished && l.left() != before {
					halfWay++
				}
				l.recover(p, before, n, n%3)
				if finished {
					break
				}
			}
			t.Logf("ADD: %d moments, %d with something made", n-1, halfWay)
			if n < 60 || halfWay < 50 {
				t.Errorf("an ADD has %d moments, %d of them half way: the test looks at the wrong ones", n-1, halfWay)
			}
			halfWay, n = 0, 1
			for ; ; n++ {
				l.add(p)
				whole := l.left()
				p.result = nil // which a runtime that has lost its memory does not have
				_, finished := l.killAt("DEL", p, n)
				if now := l.left(); !finished && now != whole && now != before {
					halfWay++
				}
				l.recover(p, before, n, 2*(n%2))
				if finished {
					break
				}
			}
			t.Logf("DEL: %d moments, %d with something left", n-1, halfWay)
			if n < 40 || halfWay < 8 {
				t.Errorf("a DEL has %d moments, %d of them half way: the test looks at the wrong ones", n-1, halfWay)
			}
			l.must("CHECK", other)
			for i := range 4 {
				l.add(l.pod(fmt.Sprint("full-", i)))
			}
		})
	}
}

// recover does what may come after a kill: 0 DEL, 1 ADD again and DEL, 2 GC.
func (l *lab) recover(p *pod, before string, n, how int) {
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
	if left := l.left(); left != before {
		l.t.Fatalf("after a kill at %d and recovery %d: %v", n, how, left)
	}
	if out := nstest.Run(l.t, p.ns, "ip", "-br", "link"); strings.Contains(out, "eth0") {
		l.t.Fatalf("after a kill at %d and recovery %d the pod has:\n%s", n, how, out)
	}
	if !strings.Contains(l.keys, "sourceCheck") {
		return
	}
	if out := nstest.Run(l.t, l.node, "nft", "list", "ruleset"); strings.Contains(out, attach.PortName(p.id, "eth0")) {
		l.t.Fatalf("after a kill at %d and recovery %d the pod's port is bound:\n%s", n, how, out)
	}
}
