// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func self(t *testing.T) string {
	t.Helper()
	s, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return s
}

func TestDoComesBack(t *testing.T) {
	home := self(t)
	a, b := nstest.New(t), nstest.New(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			err := a.Do(func() error {
				in := self(t)
				return b.Do(func() error { // nested
					if deep := self(t); deep == in || in == home {
						t.Errorf("namespaces %s, %s, %s are not three", home, in, deep)
					}
					return nil
				})
			})
			if err != nil {
				t.Error(err)
			}
			if now := self(t); now != home {
				t.Errorf("after Do in %s, want %s", now, home)
			}
		})
	}
	wg.Wait()
}

func TestMountOpenUnmount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "netns", "pod")
	h := nstest.New(t)
	if err := h.Mount(path); err != nil {
		t.Fatal(err)
	}
	if err := h.Mount(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second mount at the same place: %v, want ErrExist", err)
	}
	again, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := netns.Unmount(path); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open after unmount: %v, want ErrNotExist", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(path); err == nil || !strings.Contains(err.Error(), "not a namespace") {
		t.Errorf("open of a plain file: %v", err)
	}
}

func TestHereStaysOnItsThreadAndComesBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, a := self(t), nstest.New(t)
	err := a.Here(func() error {
		inside, err := netns.Current()
		if err != nil {
			return err
		}
		defer inside.Close() //nolint:errcheck // a test
		if same, err := inside.Same(a); !same || err != nil {
			t.Errorf("inside is not the namespace asked for: %v", err)
		}
		return fs.ErrInvalid
	})
	if !errors.Is(err, fs.ErrInvalid) || self(t) != home {
		t.Errorf("came back with %v in %s, want %s", err, self(t), home)
	}
}

func TestClosedTwiceClosesNothingElse(t *testing.T) {
	h, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := netns.Current() // gets the number that is free now
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // a test
	if err := h.Close(); err == nil {
		t.Error("the second Close says nothing")
	}
	if same, err := other.Same(other); !same || err != nil {
		t.Errorf("the second Close closed another handle: %v", err)
	}
}
