// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The store makes its system calls directly: os.File registers every file with the runtime's poller, which a process
// that lives two milliseconds does not need.

// openTemp makes a file that has no name yet (open(2), O_TMPFILE). On a file system without that it has one, temp, which
// the caller unlinks as soon as the file has its proper name.
func openTemp(dir string) (fd int, temp string, err error) {
	for {
		fd, err = unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		temp = fmt.Sprintf("%s/.new-%d-%d", dir, unix.Getpid(), time.Now().UnixNano())
		fd, err = unix.Open(temp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	}
	return fd, temp, err
}

func openRead(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// link gives the lease's file one more name; fs.ErrExist when the name is taken.
func (l *Lease) link(path string) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(l.fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

func (l *Lease) stat() error {
	var st unix.Stat_t
	if err := unix.Fstat(l.fd, &st); err != nil {
		return fmt.Errorf("stat lease: %w", err)
	}
	l.ino = st.Ino
	return nil
}

func (l *Lease) links() (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(l.fd, &st); err != nil {
		return 0, fmt.Errorf("stat lease: %w", err)
	}
	return int(st.Nlink), nil
}

// since is when the lease was made.
func (l *Lease) since() (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Fstat(l.fd, &st); err != nil {
		return time.Time{}, fmt.Errorf("stat lease: %w", err)
	}
	return time.Unix(st.Mtim.Unix()), nil
}

// read takes the record from the file called name. One that says nothing, as a power failure may leave it on a disk, is
// its owner's all the same, whom the name tells; what else it said is taken for what needs most to be undone.
func (l *Lease) read(name string) error {
	buf := make([]byte, 4096)
	n, err := unix.Pread(l.fd, buf, 0)
	if err != nil {
		return fmt.Errorf("read lease: %w", err)
	}
	if l.Record, err = parseRecord(buf[:n]); err != nil {
		id, ifName, _ := strings.Cut(name, "@")
		l.Record = Record{Owner: Owner{ContainerID: id, IfName: ifName}, Guarded: true}
	}
	return nil
}

// update writes what an ADD that goes on with the attachment knows better, in one write, so that nobody reads half of it.
func (l *Lease) update(r Record) error {
	r.Guarded = r.Guarded || l.Guarded
	if r == l.Record {
		return nil
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(l.fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return wrap("write lease", err)
	}
	defer unix.Close(fd) //nolint:errcheck // written, or not
	text := r.encode()
	if n, err := l.size(); err == nil && n > len(text) { // what is longer ends in space
		text = append(text, bytes.Repeat([]byte{' '}, n-len(text))...)
	}
	if err := writeAll(fd, text); err != nil {
		return wrap("write lease", err)
	}
	l.Record = r
	return nil
}

func (l *Lease) size() (int, error) {
	var st unix.Stat_t
	err := unix.Fstat(l.fd, &st)
	return int(st.Size), err
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}

func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR { //nolint:errorlint // a bare number
			return err
		}
	}
}

func unlink(path string) error { return unix.Unlink(path) }

func writeAll(fd int, data []byte) error {
	n, err := unix.Pwrite(fd, data, 0)
	if err == nil && n < len(data) {
		err = unix.ENOSPC
	}
	return err
}

// dirent takes one linux_dirent64 (getdents(2)) apart: d_ino 0, d_reclen 16, d_name 19.
func dirent(b []byte) (ino uint64, name string, length int) {
	length = int(binary.NativeEndian.Uint16(b[16:]))
	text := b[19:length]
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	return binary.NativeEndian.Uint64(b), string(text), length
}
