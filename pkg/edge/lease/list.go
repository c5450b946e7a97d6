// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one address that is held.
type Entry struct {
	Addr netip.Addr
	Record
	Since     time.Time
	HostLocal bool // host-local wrote it: the Record has the owner only
}

// List reads all leases, sorted by address. One that goes meanwhile is left out; a missing store is empty. A file that
// says nothing which we understand is listed with an empty Record.
func (s *Store) List() ([]Entry, error) {
	var out []Entry
	var addrs []netip.Addr
	if err := s.each(func(a netip.Addr, _ uint64) { addrs = append(addrs, a) }); err != nil {
		return nil, err
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, a := range addrs {
		path := s.path(a.String())
		info, err := os.Stat(path)
		text, err2 := os.ReadFile(path)
		if err := errors.Join(err, err2); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("list leases: %w", err)
		}
		e := Entry{Addr: a, Since: info.ModTime()}
		if e.Record, err = parseRecord(text); err != nil {
			e.Owner, err = parseForeign(text)
			e.HostLocal = err == nil
		}
		out = append(out, e)
	}
	return out, nil
}

// Count is how many of the addresses that keep accepts are held, here or in a store beside.
func (s *Store) Count(keep func(netip.Addr) bool) (int, error) {
	held, err := s.taken()
	n := 0
	for a := range held {
		if keep(a) {
			n++
		}
	}
	return n, err
}

// taken reads the addresses that are held, here or in a store beside.
func (s *Store) taken() (map[netip.Addr]bool, error) {
	held := map[netip.Addr]bool{}
	others, err := s.others()
	errs := []error{err}
	for _, dir := range append([]string{s.dir}, others...) {
		errs = append(errs, At(dir).each(func(a netip.Addr, _ uint64) { held[a] = true }))
	}
	return held, errors.Join(errs...)
}

// Networks are the names of the stores in a directory, which need not be there, in no order.
func Networks(dir string) (names []string, err error) {
	err = eachName(dir, func(name string, _ uint64) {
		if !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	})
	return names, err
}

// Owners lists the attachments, those without an address too.
func (s *Store) Owners() ([]Owner, error) {
	entries, err := os.ReadDir(s.path(owners))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var out []Owner
	for _, e := range entries {
		if id, ifName, ok := strings.Cut(e.Name(), "@"); ok {
			out = append(out, Owner{id, ifName})
		}
	}
	return out, nil
}

// each reads the names of the addresses and their inodes in one pass, without opening a file.
func (s *Store) each(f func(netip.Addr, uint64)) error {
	return eachName(s.dir, func(name string, ino uint64) {
		if a, err := netip.ParseAddr(name); err == nil {
			f(a, ino)
		}
	})
}

// eachName reads a directory, which need not be there.
func eachName(dir string, f func(name string, ino uint64)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) { // a link that leads nowhere
		return nil
	}
	if err != nil {
		return fmt.Errorf("list leases in %s: %w", dir, err)
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list leases in %s: %w", dir, err)
		}
		if n <= 0 {
			return nil
		}
		for rest := buf[:n]; len(rest) > 0; {
			ino, name, length := dirent(rest)
			f(name, ino)
			rest = rest[length:]
		}
	}
}
