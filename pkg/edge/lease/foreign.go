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
)

// Foreign is one address that the reference plugin host-local holds in the store's directory: a node that comes from it has
// such files, in a directory of their own, or beside our leases where ipam.dataDir has stayed.
type Foreign struct {
	Addr    netip.Addr
	Owner             // IfName is empty where a host-local before 0.7 wrote the file
	Since   time.Time // when it was written
	Problem string    // why nobody can tell whose it is: Owner is empty then
}

// Of says that the file is the attachment's, as host-local itself decides it.
func (f Foreign) Of(o Owner) bool {
	return f.ContainerID != "" && f.ContainerID == o.ContainerID && (f.IfName == "" || f.IfName == o.IfName)
}

// Foreign reads host-local's files in the store's directory, sorted by address. Ours are passed over without opening them.
func (s *Store) Foreign() ([]Foreign, error) {
	return s.ForeignIn(func(netip.Addr) bool { return true })
}

// ForeignIn is Foreign for the addresses that keep accepts; the files of others are not read.
func (s *Store) ForeignIn(keep func(netip.Addr) bool) ([]Foreign, error) {
	ours := map[uint64]bool{}
	if err := eachName(s.path(owners), func(_ string, ino uint64) { ours[ino] = true }); err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	err := s.each(func(a netip.Addr, ino uint64) {
		if !ours[ino] && keep(a) {
			addrs = append(addrs, a)
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var out []Foreign
	for _, a := range addrs {
		if f, ok := s.foreign(a); ok {
			out = append(out, f)
		}
	}
	return out, nil
}

// foreign reads one file; ok is false when it has gone meanwhile, or is a lease of ours that has just been made.
func (s *Store) foreign(a netip.Addr) (Foreign, bool) {
	f := Foreign{Addr: a}
	text, err := os.ReadFile(s.path(a.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return Foreign{}, false
	}
	if _, ours := parseRecord(text); err == nil && ours == nil {
		return Foreign{}, false
	}
	if info, serr := os.Stat(s.path(a.String())); serr == nil {
		f.Since = info.ModTime()
	}
	if err == nil {
		f.Owner, err = parseForeign(text)
	}
	if err != nil {
		f.Problem = err.Error()
	}
	return f, true
}

// parseForeign reads what host-local writes: the container, and since 0.7 the interface on a line of its own.
func parseForeign(text []byte) (Owner, error) {
	id, ifName, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	id, ifName = strings.TrimSpace(id), strings.TrimSpace(ifName)
	switch {
	case id == "":
		return Owner{}, errors.New("the file is empty, as a crash of host-local leaves it: nobody can tell whose the address is")
	case strings.ContainsFunc(id, notInID), strings.ContainsAny(ifName, "/ \t\r\n\x00"):
		return Owner{}, fmt.Errorf("the file says %.60q, which names no container", text)
	}
	return Owner{id, ifName}, nil
}

// notInID says that a container id has no such letter (CNI specification, "Parameters").
func notInID(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-')
}

// ForeignAt is Foreign for some addresses, without reading the directory.
func (s *Store) ForeignAt(addrs []netip.Addr) (out []Foreign) {
	for _, a := range addrs {
		if _, err := inode(s.path(a.String())); err != nil {
			continue
		}
		if f, ok := s.foreign(a); ok {
			out = append(out, f)
		}
	}
	return out
}

// DropForeign removes the files that host-local has written for an attachment. It finds them by what they say, as a runtime
// need not tell which addresses the attachment had.
func (s *Store) DropForeign(o Owner) error {
	all, err := s.Foreign()
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Of(o) {
			if err := s.Unlink(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Unlink removes the file of one of host-local's addresses.
func (s *Store) Unlink(f Foreign) error {
	if err := unlink(s.path(f.Addr.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release %s: %w", f.Addr, err)
	}
	return nil
}
