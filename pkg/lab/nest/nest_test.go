// SPDX-License-Identifier: Apache-2.0

package nest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab/nest"
)

// roleVar makes the test binary play another part: it is what the tests start.
const roleVar = "NEST_TEST_ROLE"

func TestMain(m *testing.M) {
	inner := nest.Boot() != nil
	role := os.Getenv(roleVar)
	switch {
	case role != "" && inner:
		os.Exit(playInner(role))
	case role != "":
		code, err := nest.Nest{Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}.Run()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func playInner(role string) int {
	switch role {
	case "look":
		host, _ := os.Hostname()
		netns, _ := os.Readlink("/proc/self/ns/net")
		run, _ := filepath.Glob("/run/*")
		links, _ := filepath.Glob("/sys/class/net/*")
		fmt.Println(os.Getuid(), os.Getppid(), host, netns, strings.Join(run, ","), strings.Join(links, ","))
	case "fail":
		return 42
	case "orphan": // leaves a child behind that outlives it, unless process 1 takes it down
		if err := exec.Command("sleep", "1000").Start(); err != nil {
			return 1
		}
	case "stay":
		cmd := exec.Command("sleep", "1000")
		cmd.Stdout = os.Stdout // its end is what the test waits for
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 1
		}
		fmt.Println("up")
		select {}
	case "term":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("up")
		<-signals
		return 7
	}
	return 0
}

// outer starts this test's program as the outer process of a nest. What it and all within it write ends with them.
func outer(t *testing.T, role string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	return cmd, bufio.NewReader(r)
}

func TestTheInnerProcessIsAlone(t *testing.T) {
	cmd, out := outer(t, "look")
	line, err := out.ReadString('\n')
	if err = errors.Join(err, cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(line)
	own, _ := os.Readlink("/proc/self/ns/net")
	if len(f) != 6 || f[0] != "0" || f[1] != "1" || f[2] != "l3lab" || f[3] == own {
		t.Errorf("want root, child of process 1, on l3lab, in a network namespace other than %s; got %s", own, line)
	}
	if len(f) == 6 && (f[4] != "/run/lock,/run/netns" || f[5] != "/sys/class/net/lo") {
		t.Errorf("want an empty /run and only lo, got %s and %s", f[4], f[5])
	}
}

func TestExitStatusComesOut(t *testing.T) {
	cmd, _ := outer(t, "fail")
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 42 {
		t.Errorf("got %v, want 42", cmd.ProcessState)
	}
}

func TestSignalsGoIn(t *testing.T) {
	cmd, out := outer(t, "term")
	if _, err := out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("got %v, want the inner process's 7", cmd.ProcessState)
	}
}

func TestOrphansEndWithTheInnerProcess(t *testing.T) {
	cmd, out := outer(t, "orphan")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	ends(t, out)
}

func TestKillingTheOuterProcessLeavesNothing(t *testing.T) {
	cmd, out := outer(t, "stay")
	if _, err := out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	ends(t, out)
}

// ends waits until no process holds the other end of the pipe.
func ends(t *testing.T, r *bufio.Reader) {
	t.Helper()
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, r); done <- err }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("processes of the nest live on")
	}
}

func TestRegistry(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	reg, err := nest.OpenRegistry("l3edge-test-" + fmt.Sprint(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(reg.Path("x", ""))) })
	if _, _, err := reg.Get("lab"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a lab that was never there: %v", err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := reg.Add(nest.Record{Name: "lab", Pid: cmd.Process.Pid}); err != nil {
		t.Fatal(err)
	}
	if rec, alive, err := reg.Get("lab"); err != nil || !alive || rec.Pid != cmd.Process.Pid {
		t.Errorf("got %+v %v %v, want the living process", rec, alive, err)
	}
	if all, err := reg.All(); err != nil || len(all) != 1 {
		t.Errorf("all: %v %v, want one", all, err)
	}
	if err := reg.End("lab"); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended by %v", cmd.ProcessState)
	}
	if _, _, err := reg.Get("lab"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
}

func TestAnotherProcessWithTheSameNumberIsNotOurs(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	reg, err := nest.OpenRegistry("l3edge-test-" + fmt.Sprint(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(reg.Path("x", ""))) })
	if err := reg.Add(nest.Record{Name: "old", Pid: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(reg.Path("old", ".json"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `"ticks": "`, `"ticks": "9`, 1)
	if err := os.WriteFile(reg.Path("old", ".json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, alive, err := reg.Get("old"); err != nil || alive {
		t.Errorf("alive %v, %v: want dead", alive, err)
	}
	if err := reg.End("old"); err != nil { // and this test goes on
		t.Error(err)
	}
}
