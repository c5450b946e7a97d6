// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"
	"path/filepath"
)

// prune drops from the memory, once, what was removed while no process looked.
func (s *store) prune() {
	if !s.scanned || s.pruned {
		return
	}
	names, err := s.memory.names()
	s.note("", err)
	for _, name := range names {
		if s.files[name] == nil {
			s.forget(name)
		}
	}
	s.pruned = err == nil
}

// recallAll takes in what an earlier process knew.
func (s *store) recallAll() {
	names, err := s.memory.names()
	s.note("", err)
	for _, name := range names {
		if s.files[name] == nil {
			e := &entry{}
			s.files[name] = e
			s.recall(name, e)
		}
	}
}

// recall gives an entry the last good content that an earlier process knew of it.
func (s *store) recall(name string, e *entry) {
	text, ok := s.memory.recall(name)
	if !ok {
		return
	}
	if spans := parse(text, nil); len(brokenOf(spans)) == 0 {
		s.replace(name, e, spans)
		e.everGood = true
	}
}

// note keeps what the memory could not do until it can; services do not depend on it.
func (s *store) note(name string, err error) {
	if err == nil {
		delete(s.trouble, name)
		return
	}
	s.trouble[name] = err
}

// remember shows the memory at most n good files that it has not seen, and reports whether there are more. It is done
// when services have what they need: a restart that comes before it finds an older text.
func (s *store) remember(n int) (more bool) {
	for name, d := range s.due {
		if n--; n < 0 {
			return true
		}
		delete(s.due, name)
		path := filepath.Join(s.dir, name)
		if fi, err := os.Stat(path); err == nil && stampOf(fi) == d.stamp { // or there is news of it soon
			s.note(name, s.memory.keep(name, path, fi, d.news))
		}
	}
	return false
}

// little reports that the memory can see all that it has not seen in no time.
func (s *store) little() bool {
	bytes := int64(0)
	for _, d := range s.due {
		bytes += d.size
	}
	return len(s.due) <= gulp && bytes <= little
}
