// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// memory keeps the last good text of every manifest on disk, so that a restart while a manifest is broken, or while the
// whole directory is away, does not take from the network what was right. The zero memory keeps nothing.
type memory struct{ dir string }

// memoryFor keeps what it remembers of the manifests in dir apart from that of any other directory. No root: no memory.
func memoryFor(root, dir string) memory {
	if root == "" {
		return memory{}
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return memory{filepath.Join(root, url.PathEscape(dir))}
}

// names are the files that are remembered.
func (m memory) names() ([]string, error) {
	if m.dir == "" {
		return nil, nil
	}
	list, err := os.ReadDir(m.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remember manifests: %w", err)
	}
	var out []string
	for _, e := range list {
		if counts(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// recall returns the last good text of a file; ok is false when there is none.
func (m memory) recall(name string) (text []byte, ok bool) {
	if m.dir == "" {
		return nil, false
	}
	text, err := os.ReadFile(filepath.Join(m.dir, name))
	return text, err == nil
}

// keep remembers the good text of a file. A crash leaves the old one or the new one. A text of the same size and time is
// the same, unless there is news of it: of many files that a restart finds unchanged none is read.
func (m memory) keep(name, path string, fi fs.FileInfo, news bool) error {
	if m.dir == "" {
		return nil
	}
	mine := filepath.Join(m.dir, name)
	if have, err := os.Stat(mine); !news && err == nil && have.Size() == fi.Size() && have.ModTime().Equal(fi.ModTime()) {
		return nil
	}
	w, err := readWhole(path, 0)
	if err != nil || w.busy || w.stamp != stampOf(fi) {
		return nil // it goes or changes: there is news of it soon
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("remember manifests: %w", err)
	}
	tmp := filepath.Join(m.dir, "."+name) // a name that does not count
	if err := os.WriteFile(tmp, w.text, 0o600); err != nil {
		return fmt.Errorf("remember manifests: %w", err)
	}
	if err := errors.Join(os.Chtimes(tmp, time.Time{}, fi.ModTime()), os.Rename(tmp, mine)); err != nil {
		return fmt.Errorf("remember manifests: %w", err)
	}
	return nil
}

// forget drops a file that was removed.
func (m memory) forget(name string) error {
	if m.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(m.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remember manifests: %w", err)
	}
	return nil
}
