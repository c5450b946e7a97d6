// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"syscall"

	"github.com/l3edge/l3edge/pkg/edge/keep"
)

// manager is the service manager as the proxy sees it: its proxy.Keeper.
type manager struct {
	store *keep.Store
	files map[string]*os.File // left by the last process and not taken yet
}

// openManager finds the service manager and what it has kept. Without one, or with an error, the manager keeps nothing and
// is of use all the same.
func openManager() (*manager, error) {
	files, err := keep.Inherited()
	store, operr := keep.Open()
	return &manager{store: store, files: files}, errors.Join(err, operr)
}

func (m *manager) Take(name string) *os.File {
	f := m.files[name]
	delete(m.files, name)
	return f
}

func (m *manager) Put(name string, socket syscall.Conn) error { return m.store.Put(name, socket) }

func (m *manager) Drop(name string) error { return m.store.Drop(name) }

// settle is for the first time that everything is in force: it gives up sockets of portals that are no more, whose clients
// would wait for ever, and tells the service manager that portald is up.
func (m *manager) settle() error {
	var errs []error
	for name, f := range m.files {
		errs = append(errs, f.Close(), m.store.Drop(name))
	}
	clear(m.files)
	return errors.Join(append(errs, m.store.Ready())...)
}
