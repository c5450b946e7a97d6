// SPDX-License-Identifier: Apache-2.0

// Package file makes a Snapshot out of a directory of Kubernetes manifests, once or for as long as it is watched.
//
// Files named *.yaml, *.yml and *.json count, in the order of their names; names that begin with a dot do not, and
// sub-directories are not entered. Each holds any number of documents: Service, EndpointSlice, Endpoints, or lists.
package file

import (
	"cmp"
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
	s := newStore(dir, memory{})
	err := s.scan()
	return s.book.Take().Snapshot(), errors.Join(append([]error{err}, s.problems()...)...)
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
	good          []span
	broken, notes []Problem
	everGood      bool
	inode         uint64 // of the file as it was read last
}

// store is the directory as last read. The book holds what counts of it.
type store struct {
	dir     string
	book    *kubeobj.Book
	files   map[string]*entry
	wrong   map[string]bool     // files with something to say about
	busy    map[string]bool     // files that somebody is writing: what they said before counts until that is done
	holders map[string][]holder // of the objects by key, in the order of the files: the first counts
	rivals  map[string]bool     // keys with several holders
	memory  memory
	due     map[string]due // good files that the memory has not seen
	scanned bool           // the directory has been read since this process began
	pruned  bool
	trouble map[string]error // what the memory could not do, by file; empty name: list itself
}

// holder is a file that has an object.
type holder struct {
	file string
	line int
	doc  *doc
	at   int // which of the document's objects
}

func newStore(dir string, m memory) store {
	return store{
		dir: dir, memory: m, book: kubeobj.NewBook(), files: map[string]*entry{}, wrong: map[string]bool{}, busy: map[string]bool{},
		holders: map[string][]holder{}, rivals: map[string]bool{}, due: map[string]due{}, trouble: map[string]error{},
	}
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
		}
	}
	s.read(here, false)
	for name := range s.files {
		if !here[name] {
			s.forget(name)
		}
	}
	s.scanned = true
	s.prune()
	return nil
}

// forget drops a file that is gone.
func (s *store) forget(name string) {
	if e := s.files[name]; e != nil {
		s.replace(name, e, nil)
	}
	delete(s.files, name)
	delete(s.wrong, name)
	delete(s.busy, name)
	delete(s.due, name)
	s.note(name, s.memory.forget(name))
}

func counts(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// due is a file as it should be remembered; news: its stamp may be an older text's.
type due struct {
	stamp
	news bool
}

// look is one file as it is read.
type look struct {
	name  string
	news  bool   // there was an event: the stamp may be as before, within one tick of the clock
	entry *entry // as it was; nil: it is new
	stamp stamp
	spans []span
	busy  bool // somebody is writing it
	gone  bool // or no file
	err   error
}

// read takes in those of the files that are new or changed, and forgets those that are gone. With news it does not believe
// their stamps.
func (s *store) read(names map[string]bool, news bool) {
	looks := make([]look, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		looks = append(looks, look{name: name, news: news, entry: s.files[name]})
	}
	sideBySide(len(looks), func(i int) { looks[i].at(filepath.Join(s.dir, looks[i].name)) })
	for _, l := range looks {
		s.take(l)
	}
}

// at reads the file if it has changed. It may run beside others.
func (l *look) at(path string) {
	fi, err := os.Stat(path) // follows symbolic links: Kubernetes mounts volumes with them
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.gone = true
	case err != nil:
		l.err = err
	case !fi.Mode().IsRegular():
		l.gone = true
	default:
		var old []span
		var inode uint64
		if l.entry != nil {
			if old, inode = l.entry.good, l.entry.inode; l.entry.stamp == stampOf(fi) && !l.news {
				l.stamp = l.entry.stamp
				return
			}
		}
		w, err := readWhole(path, inode)
		if l.err = err; err == nil {
			l.stamp, l.busy, l.spans = w.stamp, w.busy, parse(w.text, old)
		}
	}
}

// take makes what was read count.
func (s *store) take(l look) {
	e := l.entry
	switch {
	case l.gone:
		s.forget(l.name)
		return
	case e != nil && l.err == nil && l.stamp == e.stamp && !l.news:
		return
	case e == nil:
		e = &entry{}
		s.files[l.name] = e
	}
	defer func() {
		if delete(s.wrong, l.name); len(e.broken)+len(e.notes) > 0 {
			s.wrong[l.name] = true
		}
	}()
	path := filepath.Join(s.dir, l.name)
	if l.entry == nil && (l.err != nil || l.busy || len(l.spans) == 0) {
		s.recall(l.name, e)
	}
	if l.err != nil {
		e.broken, e.stamp = []Problem{{File: path, What: l.err.Error()}}, stamp{}
		return
	}
	if delete(s.busy, l.name); l.busy {
		s.busy[l.name] = true
		if e.everGood {
			e.stamp = stamp{}
			return
		}
	}
	e.stamp, e.broken, e.notes, e.inode = l.stamp, nil, nil, l.stamp.inode
	for _, sp := range l.spans {
		for _, p := range sp.broken {
			e.broken = append(e.broken, sp.at(path, p))
		}
		for _, p := range sp.notes {
			e.notes = append(e.notes, sp.at(path, p))
		}
	}
	for _, p := range twice(l.spans) {
		e.broken = append(e.broken, Problem{path, p.Line, p.What})
	}
	if e.everGood && len(e.good) > 0 && len(l.spans) == 0 {
		e.broken = append(e.broken, Problem{File: path, What: "empty; what it said stays in force until the file is removed"})
	}
	if len(e.broken) == 0 {
		s.due[l.name] = due{l.stamp, l.news || s.due[l.name].news}
		s.prune() // if the memory could not be read before
	} else if l.entry == nil {
		s.recall(l.name, e)
	}
	// A file that was good and is not any more keeps its last good content whole; one that never was gives what it has.
	if len(e.broken) == 0 || !e.everGood {
		s.replace(l.name, e, l.spans)
	}
	e.everGood = e.everGood || len(e.broken) == 0
}

func brokenOf(spans []span) []Problem {
	out := twice(spans)
	for _, sp := range spans {
		out = append(out, sp.broken...)
	}
	return out
}

// replace makes the content of a file count instead of what it had. What stands in both is left alone.
func (s *store) replace(name string, e *entry, spans []span) {
	old, now := map[*doc]bool{}, map[*doc]bool{}
	head, tail := common(e.good, spans)
	for _, sp := range e.good[head : len(e.good)-tail] {
		old[sp.doc] = true
	}
	for _, sp := range spans[head : len(spans)-tail] {
		now[sp.doc] = true
	}
	for _, sp := range e.good[head : len(e.good)-tail] {
		if !now[sp.doc] {
			for _, o := range sp.objects {
				s.drop(o.key, name, sp.doc)
			}
		}
	}
	for _, sp := range spans[head : len(spans)-tail] {
		if !old[sp.doc] {
			for i, o := range sp.objects {
				s.hold(o.key, holder{name, sp.line + o.line, sp.doc, i})
			}
		}
	}
	e.good = spans
}

// common counts the documents that two contents begin and end with alike.
func common(a, b []span) (head, tail int) {
	n := min(len(a), len(b))
	for head < n && a[head].doc == b[head].doc {
		head++
	}
	for tail < n-head && a[len(a)-1-tail].doc == b[len(b)-1-tail].doc {
		tail++
	}
	return head, tail
}

// drop takes an object away that a file had.
func (s *store) drop(key, file string, d *doc) {
	s.change(key, slices.DeleteFunc(slices.Clone(s.holders[key]), func(h holder) bool { return h.file == file && h.doc == d }))
}

// hold notes an object that a file has.
func (s *store) hold(key string, h holder) {
	hs := s.holders[key]
	i, _ := slices.BinarySearchFunc(hs, h, func(a, b holder) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), cmp.Compare(a.at, b.at))
	})
	s.change(key, slices.Insert(slices.Clip(hs), i, h))
}

// change makes the first of the holders count.
func (s *store) change(key string, now []holder) {
	was := s.holders[key]
	s.holders[key] = now
	if delete(s.rivals, key); len(now) > 1 {
		s.rivals[key] = true
	}
	switch {
	case len(now) == 0:
		delete(s.holders, key)
		s.book.Delete(key)
	case len(was) == 0 || was[0] != now[0]:
		s.book.Put(key, now[0].doc.objects[now[0].at].object)
	}
}

// problems lists everything that is wrong. It looks at files that are wrong only.
func (s *store) problems() []error {
	var out []error
	for _, name := range slices.Sorted(maps.Keys(s.trouble)) {
		out = append(out, s.trouble[name])
	}
	for _, name := range slices.Sorted(maps.Keys(s.wrong)) {
		e := s.files[name]
		for _, p := range slices.Concat(e.broken, e.notes) {
			out = append(out, p)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.rivals)) {
		first := s.holders[key][0]
		for _, h := range s.holders[key][1:] {
			if h.file != first.file { // else it is said already
				out = append(out, Problem{filepath.Join(s.dir, h.file), s.lineOf(h), fmt.Sprintf("%s is also in %s:%d; that one counts",
					key, filepath.Join(s.dir, first.file), s.lineOf(first))})
			}
		}
	}
	return out
}

// lineOf is where a holder's object stands now: documents before it may have grown.
func (s *store) lineOf(h holder) int {
	for _, sp := range s.files[h.file].good {
		if sp.doc == h.doc {
			return sp.line + sp.objects[h.at].line
		}
	}
	return h.line
}
