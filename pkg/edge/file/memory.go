// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
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

// keep remembers a good text. A crash leaves the old one or the new one.
func (m memory) keep(name string, text []byte) error {
	if have, ok := m.recall(name); m.dir == "" || ok && bytes.Equal(have, text) {
		return nil
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("remember manifests: %w", err)
	}
	tmp := filepath.Join(m.dir, "."+name) // a name that does not count
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return fmt.Errorf("remember manifests: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(m.dir, name)); err != nil {
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
