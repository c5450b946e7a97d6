// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/pool"
)

// beside returns the file by which another store holds the address, if any. It is looked for when the address has been
// claimed: of two stores that give the same one at once, neither keeps it.
func (s *Store) beside(a netip.Addr) (string, error) {
	dirs, err := s.others()
	for _, dir := range dirs {
		path := dir + "/" + a.String()
		if _, err := inode(path); err == nil {
			return path, nil
		}
	}
	return "", err
}

// others are the directories of the stores beside, those of now.
func (s *Store) others() ([]string, error) {
	dirs := s.Beside
	for _, parent := range s.Around {
		names, err := Networks(parent)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if path := parent + "/" + n; !sameFile(path, s.dir) {
				dirs = append(dirs[:len(dirs):len(dirs)], path)
			}
		}
	}
	return dirs, nil
}

// Where says which other directories hold how many addresses of the set, for whoever wonders why it is full.
func (s *Store) Where(set pool.Set) (out string) {
	dirs, _ := s.others() // of what cannot be read nothing is said
	for _, dir := range dirs {
		n := 0
		_ = At(dir).each(func(a netip.Addr, _ uint64) {
			if _, ok := set.Find(a); ok {
				n++
			}
		})
		if n > 0 {
			out += fmt.Sprintf(", %d of them by files in %s", n, dir)
		}
	}
	return out
}

// sameFile says that two paths lead to one file: one directory may have several names.
func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return a == b || unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}
