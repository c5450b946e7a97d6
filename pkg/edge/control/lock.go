// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// LockNamespace makes this process the only one that uses name in its network namespace, whatever sockets and directories
// others were given: what a daemon programs belongs to the namespace, and containers that share it see another /run. It holds
// an abstract unix socket, which is the namespace's own, and a file in dir, a root-only place, against users who might take
// the socket first. Another holder is ErrInUse. The lock goes with the process, or by Close.
func LockNamespace(dir, name string) (io.Closer, error) {
	f, err := lockFile(dir, name)
	if err != nil {
		return nil, err
	}
	socket, err := lockSocket(name)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &lock{f, socket}, nil
}

// lock is a LockNamespace that is held; socket is nil where somebody else than us has taken its name.
type lock struct {
	file   *os.File
	socket net.Listener
}

func (l *lock) Close() error {
	err := l.file.Close()
	if l.socket != nil {
		err = errors.Join(err, l.socket.Close())
	}
	return err
}

func lockFile(dir, name string) (*os.File, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s-%d.lock", name, ns.Ino)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another %s runs in this network namespace: %w", name, ErrInUse)
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// lockSocket takes the name in the namespace. Abstract names have no permissions: a holder that is another user's is no
// daemon, and does not keep us from running.
func lockSocket(name string) (net.Listener, error) {
	addr := &net.UnixAddr{Name: "@l3edge/" + name, Net: "unix"}
	var err error
	for range 3 { // the holder may end between the two questions
		var l *net.UnixListener
		if l, err = net.ListenUnix("unix", addr); err == nil {
			return l, nil
		} else if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		uid, pid, perr := peer(addr)
		switch {
		case errors.Is(perr, unix.ECONNREFUSED):
			continue
		case perr != nil:
			return nil, fmt.Errorf("lock %s: %w", name, perr)
		case int(uid) != os.Geteuid():
			return nil, nil //nolint:nilnil // the file alone must do
		}
		return nil, fmt.Errorf("lock %s: another %s runs in this network namespace, process %d: %w", name, name, pid, ErrInUse)
	}
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

// peer says who listens on a socket.
func peer(addr *net.UnixAddr) (uid uint32, pid int32, err error) {
	c, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close() //nolint:errcheck // nothing was said
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return 0, 0, err
	}
	return cred.Uid, cred.Pid, nil
}
