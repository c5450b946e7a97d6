// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"net/netip"

	"golang.org/x/sys/unix"
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

// sameFile says that two paths lead to one file: one directory may have several names.
func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return a == b || unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}
