// SPDX-License-Identifier: Apache-2.0

package orphan_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/orphan"
)

// pipe is a pipe whose reading end says when the last writer is gone.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// closed reports that nobody holds the writing end any more, within the time.
func closed(t *testing.T, r *os.File, within time.Duration) bool {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := r.Read(make([]byte, 1))
	return err == io.EOF //nolint:errorlint // of a pipe
}

// reap waits for the one child, as its next parent would.
func reap(t *testing.T) {
	t.Helper()
	var s unix.WaitStatus
	if pid, err := unix.Wait4(-1, &s, 0, nil); err != nil || !s.Exited() || s.ExitStatus() != 0 {
		t.Errorf("child %d ended with %v (%v), want 0", pid, s, err)
	}
}

func TestHoldKeepsOpenWhatItIsToldAndNothingElse(t *testing.T) {
	held, hw := pipe(t)
	other, ow := pipe(t)
	const long = 300 * time.Millisecond
	start := time.Now()
	if err := orphan.Hold(long, int(hw.Fd())); err != nil {
		t.Fatal(err)
	}
	hw.Close()
	ow.Close()
	if !closed(t, other, 10*time.Second) || time.Since(start) > long {
		t.Errorf("another descriptor was closed after %s, want at once", time.Since(start))
	}
	if !closed(t, held, 10*time.Second) || time.Since(start) < long {
		t.Errorf("the held descriptor was closed after %s, want %s", time.Since(start), long)
	}
	reap(t)
}

func TestWriteWritesOnceAndEnds(t *testing.T) {
	r, w := pipe(t)
	if err := orphan.Write(int(w.Fd()), []byte("delete it")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "delete it" {
		t.Errorf("came through: %q (%v)", got, err)
	}
	reap(t)
}

// TestNobodyWaits: a runtime reads a plugin's output to its end, which a child must not keep open.
func TestNobodyWaits(t *testing.T) {
	const long = 2 * time.Second
	if os.Getenv("ORPHAN_TEST") != "" {
		_, _ = os.Stdout.WriteString("done")
		if err := orphan.Hold(long); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestNobodyWaits$")
	cmd.Env = append(os.Environ(), "ORPHAN_TEST=1")
	// The orphan becomes ours to reap.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil || out.String() != "done" || time.Since(start) > long {
		t.Errorf("ended after %s with %q (%v)", time.Since(start), &out, err)
	}
	reap(t)
}
