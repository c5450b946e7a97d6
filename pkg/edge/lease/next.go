// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/pool"
)

// crowded is the number of collisions after which Next reads the directory once instead of trying on.
const crowded = 32

// Next claims the first free address of the set behind the one it gave last, or fails with ErrFull. index tells the
// sets of one network apart (0: the first), as each has its own place to go on from.
func (l *Lease) Next(set pool.Set, index int) (netip.Addr, error) {
	cursor := l.store.path(".last." + strconv.Itoa(index))
	tries := 0
	var taken map[netip.Addr]bool
	for a := range set.After(readCursor(cursor)) {
		if taken[a] {
			continue
		}
		err := l.link(l.store.path(a.String()))
		if err == nil {
			err = l.alone(a)
		}
		if err == nil {
			writeCursor(cursor, a)
			return a, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return netip.Addr{}, fmt.Errorf("claim %s: %w", a, err)
		}
		if tries++; tries == crowded {
			if taken, err = l.store.taken(); err != nil {
				return netip.Addr{}, err
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("%d addresses in use%s: %w", set.Size(), l.store.Where(set), ErrFull)
}

// alone gives the address back when a store beside holds it; the error is fs.ErrExist then.
func (l *Lease) alone(a netip.Addr) error {
	other, err := l.store.beside(a)
	if err == nil && other == "" {
		return nil
	}
	if derr := l.Drop(a); err != nil || derr != nil {
		return errors.Join(err, derr)
	}
	return fs.ErrExist
}

// readCursor returns the zero address when the file is missing or says nothing: the walk begins at the front then.
func readCursor(path string) netip.Addr {
	fd, err := openRead(path)
	if err != nil {
		return netip.Addr{}
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	var buf [cursorSize]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(strings.TrimSpace(string(buf[:max(n, 0)])))
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// cursorSize is fixed so that one write replaces the whole text.
const cursorSize = 48

// writeCursor remembers a. Losing it costs nothing but an address' rest, so errors are not looked at.
func writeCursor(path string, a netip.Addr) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return
	}
	defer unix.Close(fd) //nolint:errcheck // see above
	text := a.String()
	_ = writeAll(fd, []byte(text+strings.Repeat(" ", cursorSize-1-len(text))+"\n"))
}
