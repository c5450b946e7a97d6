// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/l3edge/l3edge/pkg/core/service"
)

const (
	quiet  = 3 * time.Millisecond   // events closer together than this are one change
	burst  = 50 * time.Millisecond  // but a change that never ends is passed on after this
	calm   = 3 * time.Second        // much is written to the memory when there was no change for this long
	gulp   = 64                     // so many files at a time: news do not wait for it
	little = 1 << 20                // so many bytes are written at once
	settle = 100 * time.Millisecond // a file that became bad may be half written: look again before saying so
)

// Watch calls emit with the directory's content now and with what has changed after each change, always from this goroutine,
// until ctx ends (then it returns nil). The error joins a Problem for each mistake in the files and is nil when there is
// none; the Delta is in force either way: a file that went bad keeps its last good content until it is mended or removed.
// The directory may appear, vanish or be swapped (a symbolic link changed) while it is watched; what it held stays in
// force while it is away, and only a file that is removed takes its content along. The last good text of every file is
// kept below the folder remember, a second later, so that the same holds over a restart; empty: it is not. Watch fails only
// if the kernel lets it watch nothing at all.
func Watch(ctx context.Context, dir, remember string, emit func(service.Delta, error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch manifests: %w", err)
	}
	defer w.Close() //nolint:errcheck // nothing is written through it
	l := &watchLoop{dir: filepath.Clean(dir), w: w, store: newStore(dir, memoryFor(remember, dir)), emit: emit, whole: true}
	defer l.store.remember(1 << 30)
	for {
		if err := l.update(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		for heard := false; !heard; {
			if !l.idle(ctx) {
				return nil
			}
			heard = l.pending() || l.said != fmt.Sprint(l.store.trouble)
		}
	}
}

// idle waits for news or, if the memory has not seen everything, shows it some when there are none for a while.
func (l *watchLoop) idle(ctx context.Context) bool {
	if l.store.little() && !l.store.remember(gulp) {
		return l.said != fmt.Sprint(l.store.trouble) || l.wait(ctx, nil)
	}
	timer := time.NewTimer(calm)
	defer timer.Stop()
	for {
		if l.wait(ctx, timer.C) {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !l.store.remember(gulp) {
			return true
		}
		timer.Reset(time.Millisecond)
	}
}

func (l *watchLoop) pending() bool { return l.whole || len(l.dirty) > 0 }

// watchLoop is the state of one Watch.
type watchLoop struct {
	dir   string
	w     *fsnotify.Watcher
	store store
	emit  func(service.Delta, error)
	said  string // of the memory, to emit

	self  fs.FileInfo     // the directory that is watched; nil: it is missing
	whole bool            // read everything, not only what is dirty
	dirty map[string]bool // names in dir that had an event; true: the last one took it away
	idly  bool            // what is dirty had none, but was being written when it was looked at
}

// update reads what has changed and emits it.
func (l *watchLoop) update(ctx context.Context) error {
	idly := l.idly
	names, scanErr, err := l.read()
	if err != nil {
		return err
	}
	if idly && l.allBusy(names) {
		return nil
	}
	if l.anyBroken(names) {
		timer := time.NewTimer(settle)
		defer timer.Stop()
		if l.wait(ctx, timer.C) {
			if _, scanErr, err = l.read(); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	if len(l.store.trouble) > 0 { // maybe it is over
		l.store.remember(gulp)
	}
	l.said = fmt.Sprint(l.store.trouble)
	l.emit(l.store.book.Take(), errors.Join(append([]error{scanErr}, l.store.problems()...)...))
	return nil
}

// read takes in the pending changes and returns the names it looked at.
func (l *watchLoop) read() (names map[string]bool, scanErr, err error) {
	names = l.dirty
	if l.whole {
		if err := l.rewatch(); err != nil {
			return nil, nil, err
		}
		if scanErr = l.store.scan(); scanErr == nil {
			l.store.read(l.dirty, true)
		}
		for name, removed := range l.dirty {
			if scanErr != nil && removed { // file by file, before the directory
				l.store.forget(name)
			}
		}
		names = map[string]bool{}
		for name := range l.store.files {
			names[name] = true
		}
	} else {
		l.store.read(names, true)
	}
	l.whole, l.dirty, l.idly = false, nil, false
	return names, scanErr, nil
}

func (l *watchLoop) allBusy(names map[string]bool) bool {
	for name := range names {
		if !l.store.busy[name] {
			return false
		}
	}
	return true
}

func (l *watchLoop) anyBroken(names map[string]bool) bool {
	for name := range names {
		if e := l.store.files[name]; e != nil && len(e.broken) > 0 {
			return true
		}
	}
	return false
}

// wait blocks until something changed that matters, and collects what follows closely. It returns false when ctx or
// the timer (which may be nil) ends first.
func (l *watchLoop) wait(ctx context.Context, timer <-chan time.Time) bool {
	for !l.pending() {
		var look <-chan time.Time
		if len(l.store.busy) > 0 { // nobody tells when a writer is done
			look = time.After(again)
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer:
			return false
		case <-look:
			l.idly, l.dirty = true, map[string]bool{}
			for name := range l.store.busy {
				l.dirty[name] = false
			}
			return true
		case e := <-l.w.Events:
			l.note(e)
		case <-l.w.Errors: // the queue overflowed: events are lost
			l.whole = true
		}
	}
	end := time.NewTimer(burst)
	defer end.Stop()
	for {
		calm := time.NewTimer(quiet)
		select {
		case <-ctx.Done():
			return false
		case <-calm.C:
			return true
		case <-end.C:
			return true
		case e := <-l.w.Events:
			l.note(e)
		case <-l.w.Errors:
			l.whole = true
		}
	}
}

// note sorts an event, which makes whatever is read next worth telling: a manifest in the directory is dirty; a change of the directory itself, of a link in it or of
// something on the way to it means reading everything.
func (l *watchLoop) note(e fsnotify.Event) {
	if e.Op == fsnotify.Chmod && filepath.Dir(e.Name) != l.dir {
		return
	}
	l.idly = false
	name := filepath.Base(e.Name)
	switch {
	case filepath.Dir(e.Name) != l.dir:
		if e.Name == l.dir || strings.HasPrefix(l.dir, strings.TrimSuffix(e.Name, "/")+"/") {
			l.whole = true
		}
	case counts(name):
		if l.dirty == nil {
			l.dirty = map[string]bool{}
		}
		l.dirty[name] = e.Has(fsnotify.Remove)
	case strings.HasPrefix(name, ".."): // the link that Kubernetes swaps when a ConfigMap volume changes
		l.whole = true
	}
}

// rewatch watches the directory, and the nearest part of the way to it that exists.
func (l *watchLoop) rewatch() error {
	fi, err := os.Stat(l.dir)
	if err != nil {
		fi = nil
	}
	if l.self != nil && (fi == nil || !os.SameFile(l.self, fi)) {
		_ = l.w.Remove(l.dir) // gone by itself if the directory was removed
	}
	l.self = fi
	if fi != nil {
		if err := l.w.Add(l.dir); err != nil {
			return fmt.Errorf("watch %s: %w", l.dir, err)
		}
	}
	for up := filepath.Dir(l.dir); ; up = filepath.Dir(up) {
		err := l.w.Add(up)
		if err == nil || fi != nil {
			return nil // an unreadable parent only means that a swapped directory goes unseen
		}
		if up == filepath.Dir(up) {
			return fmt.Errorf("watch %s: %w", up, err)
		}
	}
}
