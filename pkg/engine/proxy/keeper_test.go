// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// manager is a Keeper as systemd is one: it has copies of its own and is slow to let go of them.
type manager struct {
	t       *testing.T
	files   map[string]*os.File
	dropped []*os.File
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, files: map[string]*os.File{}}
	t.Cleanup(func() {
		for _, f := range m.files {
			_ = f.Close()
		}
		for _, f := range m.dropped {
			_ = f.Close()
		}
	})
	return m
}

func (m *manager) Take(name string) *os.File { return m.files[name] }

func (m *manager) Put(name string, socket syscall.Conn) error {
	f, err := socket.(*net.TCPListener).File()
	m.files[name] = f
	return err
}

func (m *manager) Drop(name string) error {
	if f := m.files[name]; f != nil {
		m.dropped = append(m.dropped, f)
	}
	delete(m.files, name)
	return nil
}

// next is the manager as the next process finds it: each socket can be taken and closed once.
func (m *manager) next() *manager {
	n := newManager(m.t)
	for name, f := range m.files {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			m.t.Fatal(err)
		}
		n.files[name] = os.NewFile(uintptr(fd), name)
	}
	return n
}

func TestKeptSocketsRefuseNobody(t *testing.T) {
	tab := table(web, says(t, "a"))
	m := newManager(t)
	first, stop := start(t, Options{Keeper: m})
	ports, err := first.Apply(tab, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprint("127.0.0.1:", ports[web])
	if got := ask(t, at); got != "a" {
		t.Fatalf("got %q", got)
	}
	stop()
	c := dialTCP(t, at) // while nobody serves
	second, _ := start(t, Options{Keeper: m.next(), Ports: ports})
	if again := apply(t, second, tab); again != at {
		t.Errorf("the port moved from %s to %s", at, again)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "a" {
		t.Errorf("the client that came in between got %q %v", b, err)
	}
	if got := ask(t, at); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestKeptSocketsRefuseWithoutEndpoints(t *testing.T) {
	for _, restart := range []bool{false, true} {
		m := newManager(t)
		p, stop := start(t, Options{Keeper: m})
		ports, err := p.Apply(table(web, says(t, "a")), nil)
		if err != nil {
			t.Fatal(err)
		}
		if restart {
			stop()
			m = m.next()
			p, _ = start(t, Options{Keeper: m, Ports: ports})
		}
		at := apply(t, p, table(web))
		if want := fmt.Sprint("127.0.0.1:", ports[web]); at != want {
			t.Errorf("restart %v: the last endpoint's end moved the port from %s to %s", restart, want, at)
		}
		_, err = net.DialTimeout("tcp", fmt.Sprint("127.0.0.2:", ports[web]), time.Second)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("restart %v: a portal without endpoints: %v", restart, err)
		}
		if len(m.files) != 0 {
			t.Errorf("restart %v: still kept: %v", restart, m.files)
		}
		apply(t, p, table(web, says(t, "b")))
		if got := ask(t, at); got != "b" || len(m.files) != 1 {
			t.Errorf("restart %v: with an endpoint again got %q, kept %v", restart, got, m.files)
		}
	}
}
