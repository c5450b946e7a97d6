// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, map[string]int{"answer": 42}) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusConflict) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, mux) }()

	var got map[string]int
	if err := Dial(path).Get(ctx, "/status", &got); err != nil || got["answer"] != 42 {
		t.Errorf("GET /status: %v %v", got, err)
	}
	if err := Dial(path).Post(ctx, "/drain", nil, nil); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("a refusal must carry the daemon's words, got %v", err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket mode: %v %v", fi, err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("a second daemon on the same socket: got %v, want ErrInUse", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve after cancel: %v", err)
	}
}

func TestListenReplacesDeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a crash leaves it
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l2, err := Listen(path)
	if err != nil {
		t.Fatalf("a dead socket file must be replaced: %v", err)
	}
	if err := l2.Close(); err != nil {
		t.Error(err)
	}
}

func TestLockNamespace(t *testing.T) {
	dir := t.TempDir()
	first, err := LockNamespace(dir, "portald")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockNamespace(dir, "portald"); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v, want ErrInUse", err)
	}
	other, err := LockNamespace(dir, "routed")
	if err != nil {
		t.Errorf("a daemon of another name: %v", err)
	} else if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	again, err := LockNamespace(dir, "portald")
	if err != nil {
		t.Fatalf("after the first is gone: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// Two containers in the host's network namespace do not share /run.
func TestLockNamespaceHoldsWhateverTheDirectory(t *testing.T) {
	first, err := LockNamespace(t.TempDir(), "portald-of-two")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockNamespace(t.TempDir(), "portald-of-two"); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one with another /run: %v, want ErrInUse", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
}

// Abstract sockets have no permissions: a user who takes the name must not keep the daemon from running.
func TestLockNamespaceIsNotForUsersToTake(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs to become another user")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHoldNameAsUser$")
	cmd.Env = append(os.Environ(), "HOLD_NAME=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := LockNamespace(dir, "portald-of-users")
	if err != nil {
		t.Fatalf("a user has the name: %v", err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	if _, err := LockNamespace(dir, "portald-of-users"); !errors.Is(err, ErrInUse) {
		t.Errorf("then the file decides: %v, want ErrInUse", err)
	}
}

func TestHoldNameAsUser(t *testing.T) {
	if os.Getenv("HOLD_NAME") == "" {
		return // it plays the user of the test above
	}
	l, err := net.Listen("unix", "@l3edge/portald-of-users")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdout.WriteString("1")
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = l.Close()
}
