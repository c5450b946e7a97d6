// SPDX-License-Identifier: Apache-2.0

// Package keep leaves open sockets with the service manager, so that they outlive the process and the next one has them.
//
// It speaks systemd's protocol (sd_notify(3), FileDescriptorStoreMax= in systemd.service(5)): a datagram to
// $NOTIFY_SOCKET with the descriptor attached; the next process finds it from descriptor 3 on, described by
// $LISTEN_FDS and $LISTEN_FDNAMES. A listening socket that is kept so refuses nobody while no process runs:
// the kernel lets clients wait in its queue.
package keep

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// Inherited returns the sockets that an earlier process left, by name, and takes them out of the environment so that no
// child believes they are its own. The caller closes the files. Two of one name: the later counts, the other is closed.
func Inherited() (map[string]*os.File, error) {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if fds == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(v); err != nil {
			return nil, fmt.Errorf("kept sockets: %w", err)
		}
	}
	n, err := strconv.Atoi(fds)
	list := strings.Split(names, ":")
	if err != nil || n < 0 || len(list) != n {
		return nil, fmt.Errorf("kept sockets: LISTEN_FDS=%s does not fit LISTEN_FDNAMES=%s", fds, names)
	}
	out := make(map[string]*os.File, n)
	for i, name := range list {
		fd := firstFD + i
		syscall.CloseOnExec(fd)
		if old := out[name]; old != nil {
			_ = old.Close()
		}
		out[name] = os.NewFile(uintptr(fd), name)
	}
	return out, nil
}

// Store is the service manager. The nil Store keeps nothing and fails at nothing.
type Store struct{ conn *net.UnixConn }

// Open returns the Store of this process, nil when no service manager listens.
func Open() (*Store, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("service manager: %w", err)
	}
	return &Store{conn: conn}, nil
}

// Put leaves a socket with the manager. Names are letters, digits, "-" and "."; one that is there already stays, too.
func (s *Store) Put(name string, socket syscall.Conn) error {
	if s == nil {
		return nil
	}
	theirs, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	manager, err := s.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	var sent, wrote error
	err = theirs.Control(func(fd uintptr) { // net's WriteMsgUnix refuses connected datagram sockets
		wrote = manager.Write(func(to uintptr) bool {
			sent = syscall.Sendmsg(int(to), []byte("FDSTORE=1\nFDNAME="+name), syscall.UnixRights(int(fd)), nil, 0)
			return !errors.Is(sent, syscall.EAGAIN)
		})
	})
	if err := errors.Join(err, wrote, sent); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// Drop makes the manager close what it has under the name.
func (s *Store) Drop(name string) error { return s.say("FDSTOREREMOVE=1\nFDNAME=" + name) }

// Ready tells the manager that the service is up.
func (s *Store) Ready() error { return s.say("READY=1") }

// Stopping tells the manager that the service goes down in good order.
func (s *Store) Stopping() error { return s.say("STOPPING=1") }

func (s *Store) say(text string) error {
	if s == nil {
		return nil
	}
	if _, err := s.conn.Write([]byte(text)); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}
