// SPDX-License-Identifier: Apache-2.0

package file

import (
	"io/fs"
	"syscall"
)

// stampOf includes the inode, so that a file replaced by rename within one tick of the clock counts as changed.
func stampOf(fi fs.FileInfo) stamp {
	s := stamp{size: fi.Size(), mtime: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}
