// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"syscall"

	"github.com/l3edge/l3edge/pkg/edge/keep"
)

// keeper is the service manager as the proxy sees it.
type keeper struct {
	store *keep.Store
	files map[string]*os.File // left by the last process and not taken yet
}

// openKeeper finds the service manager and what it has kept. Without one, or with an error, the keeper keeps nothing and
// is of use all the same.
func openKeeper() (*keeper, error) {
	files, err := keep.Inherited()
	store, operr := keep.Open()
	return &keeper{store: store, files: files}, errors.Join(err, operr)
}

func (k *keeper) Take(name string) *os.File {
	f := k.files[name]
	delete(k.files, name)
	return f
}

func (k *keeper) Put(name string, socket syscall.Conn) error { return k.store.Put(name, socket) }

func (k *keeper) Drop(name string) error { return k.store.Drop(name) }

// settle is for the first time that everything is in force: it gives up sockets of portals that are no more, whose clients
// would wait for ever, and tells the service manager that portald is up.
func (k *keeper) settle() error {
	var errs []error
	for name, f := range k.files {
		errs = append(errs, f.Close(), k.store.Drop(name))
	}
	clear(k.files)
	return errors.Join(append(errs, k.store.Ready())...)
}
