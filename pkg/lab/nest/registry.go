// SPDX-License-Identifier: Apache-2.0

package nest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Record is what the registry knows of a detached nest: enough to find its process 1 again and to be sure that it is it.
type Record struct {
	Name    string    `json:"name"`
	Pid     int       `json:"pid"`   // of process 1, as the machine counts
	Ticks   string    `json:"ticks"` // when it started, in clock ticks since boot (proc(5), stat, field 22)
	Started time.Time `json:"started"`
	User    bool      `json:"user"`              // it has a user namespace, which must be entered first
	Visible []string  `json:"visible,omitempty"` // mounts to undo on the machine
}

// Registry is a directory of records, one file each, that only its owner can write.
type Registry struct{ dir string }

// OpenRegistry opens the calling user's registry under the name, making its directory if needed.
func OpenRegistry(name string) (Registry, error) {
	dir := filepath.Join("/run", name)
	if NeedsUserNamespace() {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("%s-%d", name, os.Getuid()))
		if runtime := os.Getenv("XDG_RUNTIME_DIR"); runtime != "" {
			dir = filepath.Join(runtime, name)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Registry{}, fmt.Errorf("open registry: %w", err)
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return Registry{}, fmt.Errorf("open registry: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || !fi.IsDir() || int(st.Uid) != os.Getuid() || fi.Mode().Perm()&0o022 != 0 {
		return Registry{}, fmt.Errorf("open registry: %s is not a directory that only this user can write", dir)
	}
	return Registry{dir: dir}, nil
}

// Path is where the registry keeps the record's file of the given kind: ".json" or ".log".
func (r Registry) Path(name, kind string) string { return filepath.Join(r.dir, name+kind) }

// Add records a process 1 that the caller has just started.
func (r Registry) Add(rec Record) error {
	ticks, err := startTicks(rec.Pid)
	if err != nil {
		return fmt.Errorf("record %s: %w", rec.Name, err)
	}
	rec.Ticks = ticks
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return fmt.Errorf("record %s: %w", rec.Name, err)
	}
	return os.WriteFile(r.Path(rec.Name, ".json"), append(b, '\n'), 0o600)
}

// Get returns the record. alive is false when its process is gone: what is left of it can be removed.
func (r Registry) Get(name string) (rec Record, alive bool, err error) {
	b, err := os.ReadFile(r.Path(name, ".json"))
	if err != nil {
		return Record{}, false, err
	}
	if err := json.Unmarshal(b, &rec); err != nil {
		return Record{}, false, fmt.Errorf("read record %s: %w", name, err)
	}
	ticks, err := startTicks(rec.Pid)
	return rec, err == nil && ticks == rec.Ticks, nil
}

// All returns the records of living nests.
func (r Registry) All() ([]Record, error) {
	files, err := filepath.Glob(r.Path("*", ".json"))
	if err != nil {
		return nil, err
	}
	var out []Record
	for _, f := range files {
		rec, alive, err := r.Get(strings.TrimSuffix(filepath.Base(f), ".json"))
		if err != nil {
			return nil, err
		}
		if alive {
			out = append(out, rec)
		}
	}
	return out, nil
}

// End kills the nest if it lives, waits until it is gone, undoes its mounts on the machine and forgets it.
func (r Registry) End(name string) error {
	rec, alive, err := r.Get(name)
	if err != nil {
		return err
	}
	if alive {
		if err := syscall.Kill(rec.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end %s: %w", name, err)
		}
		for range 500 { // its whole pid namespace goes first
			if _, alive, err = r.Get(name); err != nil || !alive {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if alive {
			return fmt.Errorf("end %s: process %d does not go", name, rec.Pid)
		}
	}
	var errs []error
	for _, path := range rec.Visible {
		if e := syscall.Unmount(path, syscall.MNT_DETACH); e != nil && !errors.Is(e, syscall.EINVAL) && !errors.Is(e, syscall.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, e))
		}
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			errs = append(errs, e)
		}
	}
	errs = append(errs, os.Remove(r.Path(name, ".json")))
	if e := os.Remove(r.Path(name, ".log")); !errors.Is(e, fs.ErrNotExist) {
		errs = append(errs, e)
	}
	_ = os.Remove(r.dir) // unless there are others
	return errors.Join(errs...)
}

// startTicks tells two processes apart that had the same number one after the other. A zombie counts as gone:
// whether somebody collects it is not for us to say.
func startTicks(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	// The leader of a dying process is a zombie before its last thread has seen its pid namespace off.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(threads) <= 1 && (fields[0] == "Z" || fields[0] == "X") {
		return "", fmt.Errorf("process %d is dead", pid)
	}
	return fields[19], nil
}
