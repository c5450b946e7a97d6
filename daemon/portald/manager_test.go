// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// systemd plays the service manager: it takes messages and sockets on $NOTIFY_SOCKET.
type systemd struct {
	t    *testing.T
	path string
	conn *net.UnixConn
	said chan string
	kept map[string]*os.File // owned by the goroutine until said tells of it
}

func newSystemd(t *testing.T) *systemd {
	m := &systemd{t: t, path: filepath.Join(t.TempDir(), "notify"), said: make(chan string, 100), kept: map[string]*os.File{}}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m.conn = conn
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		for {
			buf, oob := make([]byte, 512), make([]byte, 128)
			n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			if msgs, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
				if fds, err := syscall.ParseUnixRights(&msgs[0]); err == nil {
					m.kept[strings.TrimPrefix(string(buf[:n]), "FDSTORE=1\nFDNAME=")] = os.NewFile(uintptr(fds[0]), "kept")
				}
			}
			m.said <- string(buf[:n])
		}
	}()
	return m
}

func (m *systemd) hears(want string) {
	m.t.Helper()
	for timeout := time.After(10 * time.Second); ; {
		select {
		case s := <-m.said:
			if strings.HasPrefix(s, want) {
				return
			}
		case <-timeout:
			m.t.Fatalf("portald never told the service manager %q", want)
		}
	}
}

// TestCrashRefusesNobody: portald is killed; who connects before it is back is served when it is.
func TestCrashRefusesNobody(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	w.pod(w.other, "far", "10.10.20.4:8080")
	m := newSystemd(t)
	t.Setenv("NOTIFY_SOCKET", m.path)
	first := w.start("--mode=userspace")
	m.hears("FDSTORE=1")
	m.hears("READY=1")
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait() // killed

	var waiting net.Conn
	nstest.Do(t, w.client, func() (err error) {
		waiting, err = new(net.Dialer).DialTCP(t.Context(), "tcp4", netip.AddrPort{}, netip.MustParseAddrPort(vip))
		return err
	})
	defer waiting.Close() //nolint:errcheck // a test client

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	second := &portald{w: w, log: new(lines)}
	nstest.Do(t, w.node, func() error {
		second.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, self}, w.args("--mode=userspace")...)...)
		second.cmd.Env = append(os.Environ(), "PORTALD_TEST_RUN=1", "LISTEN_FDS=1", "XTABLES_LOCKFILE="+filepath.Join(w.run, "xtables.lock"))
		for name, f := range m.kept {
			second.cmd.Env = append(second.cmd.Env, "LISTEN_FDNAMES="+name)
			second.cmd.ExtraFiles = append(second.cmd.ExtraFiles, f)
		}
		second.cmd.Stdout, second.cmd.Stderr = second.log, second.log
		return second.cmd.Start()
	})
	t.Cleanup(func() {
		second.stop()
		if t.Failed() {
			t.Logf("second log:\n%s", second.log)
		}
	})
	_ = waiting.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	n, err := waiting.Read(buf)
	if got := string(buf[:n]); got != "far saw 10.20.30.62" {
		t.Errorf("who came in between got %q %v", got, err)
	}
	m.hears("READY=1")
	// A service that is no more is not kept: its clients are refused.
	if err := os.Remove(filepath.Join(w.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	m.hears(fmt.Sprintf("FDSTOREREMOVE=1\nFDNAME=%s", keys(m.kept)))
}

func keys(m map[string]*os.File) string {
	for k := range m {
		return k
	}
	return ""
}
