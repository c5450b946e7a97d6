// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	again    = 25 * time.Millisecond // a file that is being written is looked at this often
	patience = 10 * time.Second      // a writer who has not written for this long has left the file as it should be
	lull     = time.Second           // likewise where nobody can tell whether there is one
)

// whole is a file's text, and whether somebody is still writing it: then it may be half of what it should be.
type whole struct {
	text  []byte
	stamp stamp
	busy  bool
}

// readWhole reads a file. A read lease on it (fcntl(2), F_SETLEASE) is refused while anybody has it open for writing, and
// keeps writers out while it is read: for a moment, once. inode is that of an earlier text: where the file system knows no
// leases, another one means that a whole file took its place.
func readWhole(path string, inode uint64) (whole, error) {
	f, err := os.Open(path)
	if err != nil {
		return whole{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read; a lease ends with it
	_, lease := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	fi, err := f.Stat()
	if err != nil {
		return whole{}, err
	}
	w := whole{stamp: stampOf(fi)}
	if w.text, err = readSized(f, fi); err != nil {
		return whole{}, fmt.Errorf("read %s: %w", path, err)
	}
	switch quiet := time.Since(w.stamp.mtime); {
	case lease == nil:
	case errors.Is(lease, unix.EAGAIN):
		w.busy = quiet < patience
	default:
		w.busy = quiet < lull && w.stamp.inode == inode
	}
	return w, nil
}

func readSized(r io.Reader, fi fs.FileInfo) ([]byte, error) {
	text := make([]byte, 0, fi.Size()+1)
	for {
		n, err := r.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, err
		case len(text) == cap(text):
			text = append(text, 0)[:len(text)]
		}
	}
}
