// SPDX-License-Identifier: Apache-2.0

// Package nodefile keeps the node file, /run/l3edge/node.json, on disk: read whole, replaced atomically.
package nodefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/l3edge/l3edge/pkg/core/node"
)

// Read returns the node that path describes. The error is fs.ErrNotExist (errors.Is) when nobody has published one.
func Read(path string) (node.Node, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return node.Node{}, fmt.Errorf("read node file: %w", err)
	}
	n, err := node.Parse(data)
	if err != nil {
		return node.Node{}, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// Write publishes n at path, making the directory if needed. A reader sees the old file or the new one, never a part.
// It writes nothing when the file already says the same.
func Write(path string, n node.Node) error {
	if err := n.Validate(); err != nil {
		return err
	}
	want := n.Encode()
	if have, err := os.ReadFile(path); err == nil && string(have) == string(want) {
		return nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write node file: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".node-*.json")
	if err != nil {
		return fmt.Errorf("write node file: %w", err)
	}
	_, werr := tmp.Write(want)
	if err := errors.Join(werr, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return errors.Join(fmt.Errorf("write node file: %w", err), os.Remove(tmp.Name()))
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return errors.Join(fmt.Errorf("write node file: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}
