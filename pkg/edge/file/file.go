// SPDX-License-Identifier: Apache-2.0

// Package file makes a Snapshot out of a directory of Kubernetes manifests, once or for as long as it is watched.
//
// Files named *.yaml, *.yml and *.json count, in the order of their names; names that begin with a dot do not, and
// sub-directories are not entered. Each holds any number of documents: Service, EndpointSlice, Endpoints, or lists.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/l3edge/l3edge/pkg/core/kubeobj"
	"github.com/l3edge/l3edge/pkg/core/service"
)

// Load reads the directory once. The error joins a Problem for each mistake; the Snapshot holds what was right even
// then, so a caller that can live with mistakes reports the error and goes on. A missing directory is an error
// (fs.ErrNotExist) with an empty Snapshot.
func Load(dir string) (service.Snapshot, error) {
	s := store{dir: dir, files: map[string]*entry{}}
	err := s.scan()
	snap, problems := s.snapshot()
	return snap, errors.Join(append([]error{err}, problems...)...)
}

// stamp tells whether a file has changed since it was read.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

// entry is one file: its last good content, and what is wrong with the newest.
type entry struct {
	stamp         stamp
	good          manifest
	broken, notes []Problem
	everGood      bool
}

// store is the directory as last read.
type store struct {
	dir     string
	files   map[string]*entry
	memory  memory
	scanned bool // the directory has been read since this process began
	pruned  bool
	trouble map[string]error // what the memory could not do, by file; empty name: list itself
}

// scan reads what has changed since the last scan and forgets what is gone. A directory that cannot be read takes
// nothing away: what it held last stays, also what it held for an earlier process.
func (s *store) scan() error {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		if !s.scanned {
			s.recallAll()
		}
		return fmt.Errorf("read manifests, keeping what they said last: %w", err)
	}
	here := map[string]bool{}
	for _, e := range list {
		if counts(e.Name()) {
			here[e.Name()] = true
			s.read(e.Name())
		}
	}
	for name := range s.files {
		if !here[name] {
			s.forget(name)
		}
	}
	s.scanned = true
	s.prune()
	return nil
}

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
			s.recall(name, e)
			s.files[name] = e
		}
	}
}

// recall gives an entry the last good content that an earlier process knew of it.
func (s *store) recall(name string, e *entry) {
	text, ok := s.memory.recall(name)
	if !ok {
		return
	}
	if m, broken, _ := parse(filepath.Join(s.dir, name), text); len(broken) == 0 {
		e.good, e.everGood = m, true
	}
}

// forget drops a file that is gone.
func (s *store) forget(name string) {
	delete(s.files, name)
	s.note(name, s.memory.forget(name))
}

// note keeps what the memory could not do until it can; services do not depend on it.
func (s *store) note(name string, err error) {
	if err == nil {
		delete(s.trouble, name)
		return
	}
	if s.trouble == nil {
		s.trouble = map[string]error{}
	}
	s.trouble[name] = err
}

func counts(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// read takes in one file if it is new or changed, and forgets it if it is gone.
func (s *store) read(name string) {
	path := filepath.Join(s.dir, name)
	fi, err := os.Stat(path) // follows symbolic links: Kubernetes mounts volumes with them
	if errors.Is(err, fs.ErrNotExist) {
		s.forget(name)
		return
	}
	e := s.files[name]
	fresh := e == nil
	if fresh {
		e = &entry{}
		s.files[name] = e
	}
	if err != nil {
		s.unreadable(name, e, err)
		return
	}
	if !fi.Mode().IsRegular() {
		s.forget(name)
		return
	}
	now := stampOf(fi)
	if now == e.stamp {
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		s.unreadable(name, e, err)
		return
	}
	m, broken, notes := parse(path, data)
	e.stamp, e.broken, e.notes = now, broken, notes
	if len(broken) == 0 {
		s.note(name, s.memory.keep(name, data))
		s.prune() // if the memory could not be read before
	} else if fresh {
		s.recall(name, e)
	}
	// A file that was good and is not any more keeps its last good content whole; one that never was gives what it has.
	if len(broken) == 0 || !e.everGood {
		e.good = m
	}
	e.everGood = e.everGood || len(broken) == 0
}

// unreadable notes a file that is there and cannot be read.
func (s *store) unreadable(name string, e *entry, err error) {
	if !e.everGood {
		s.recall(name, e)
	}
	e.broken, e.stamp = []Problem{{File: filepath.Join(s.dir, name), What: err.Error()}}, stamp{}
}

// snapshot puts the files together. Of two objects with one name the one in the first file counts.
func (s *store) snapshot() (service.Snapshot, []error) {
	names := make([]string, 0, len(s.files))
	for name := range s.files {
		names = append(names, name)
	}
	slices.Sort(names)
	var (
		svcs     []service.Service
		parts    []kubeobj.Slice
		problems []error
		holder   = map[string]Problem{}
	)
	for _, name := range slices.Sorted(maps.Keys(s.trouble)) {
		problems = append(problems, s.trouble[name])
	}
	for _, name := range names {
		e := s.files[name]
		for _, p := range slices.Concat(e.broken, e.notes) {
			problems = append(problems, p)
		}
		for _, key := range e.good.keys {
			here := Problem{File: filepath.Join(s.dir, name), Line: e.good.lines[key]}
			if first, dup := holder[key]; dup {
				here.What = fmt.Sprintf("%s is also in %s:%d; that one counts", key, first.File, first.Line)
				problems = append(problems, here)
				continue
			}
			holder[key] = here
			o := e.good.objects[key]
			if o.service != nil {
				svcs = append(svcs, *o.service)
			}
			parts = append(parts, o.slices...)
		}
	}
	return kubeobj.Snapshot(svcs, parts), problems
}
