// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
