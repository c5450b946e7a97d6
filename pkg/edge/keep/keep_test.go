// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain also plays the next process: it answers one connection on the socket that it inherits.
func TestMain(m *testing.M) {
	if os.Getenv("KEEP_TEST_NEXT") == "" {
		os.Exit(m.Run())
	}
	// What systemd does between fork and exec:
	_ = os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	files, err := Inherited()
	if err != nil || len(files) != 1 || os.Getenv("LISTEN_FDS") != "" {
		fmt.Println("inherited", files, err)
		os.Exit(1)
	}
	l, err := net.FileListener(files["proxy-tcp4-39770"])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	c, err := l.Accept()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = io.WriteString(c, "the next process")
	_ = c.Close()
	os.Exit(0)
}

// TestAListenerOutlivesItsProcess: a client that connects while no process serves is answered by the next.
func TestAListenerOutlivesItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close() //nolint:errcheck // a test server
	t.Setenv("NOTIFY_SOCKET", path)
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("proxy-tcp4-39770", l.(*net.TCPListener)); err != nil {
		t.Fatal(err)
	}
	text, kept := receive(t, manager)
	if text != "FDSTORE=1\nFDNAME=proxy-tcp4-39770" || kept == nil {
		t.Fatalf("the manager got %q with %v", text, kept)
	}
	at := l.Addr().String()
	_ = l.Close()
	c, err := net.Dial("tcp4", at)
	if err != nil {
		t.Fatalf("while no process listens: %v", err)
	}
	defer c.Close() //nolint:errcheck // a test client

	next := exec.Command("/proc/self/exe")
	next.Env = append(os.Environ(), "KEEP_TEST_NEXT=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=proxy-tcp4-39770")
	next.ExtraFiles = []*os.File{kept}
	if out, err := next.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "the next process" {
		t.Errorf("the client that waited got %q %v", b, err)
	}
	for _, tt := range []struct {
		say  func() error
		want string
	}{
		{func() error { return s.Drop("proxy-tcp4-39770") }, "FDSTOREREMOVE=1\nFDNAME=proxy-tcp4-39770"},
		{s.Ready, "READY=1"},
		{s.Stopping, "STOPPING=1"},
	} {
		if err := tt.say(); err != nil {
			t.Error(err)
		}
		if text, _ := receive(t, manager); text != tt.want {
			t.Errorf("the manager got %q, want %q", text, tt.want)
		}
	}
}

func receive(t *testing.T, manager *net.UnixConn) (string, *os.File) {
	t.Helper()
	buf, oob := make([]byte, 512), make([]byte, 128)
	n, oobn, _, _, err := manager.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) == 0 {
		return string(buf[:n]), nil
	}
	fds, err := syscall.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), os.NewFile(uintptr(fds[0]), "kept")
}

func TestWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := Open()
	if s != nil || err != nil {
		t.Errorf("Open: %v %v", s, err)
	}
	if err := s.Put("x", nil); err != nil {
		t.Error(err)
	}
	if err := s.Ready(); err != nil {
		t.Error(err)
	}
	for _, pid := range []string{"", "1"} {
		t.Setenv("LISTEN_PID", pid)
		t.Setenv("LISTEN_FDS", "1")
		if files, err := Inherited(); files != nil || err != nil {
			t.Errorf("another process's sockets were taken: %v %v", files, err)
		}
	}
	t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	t.Setenv("LISTEN_FDS", "2")
	t.Setenv("LISTEN_FDNAMES", "one")
	if _, err := Inherited(); err == nil || !strings.Contains(err.Error(), "LISTEN_FDS=2 does not fit LISTEN_FDNAMES=one") {
		t.Errorf("nonsense in the environment: %v", err)
	}
}
