// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Reclaim releases the attachments that are older than old, that no process works on, and of which over says that they
// have ended; over is asked with the lease locked, so that no ADD or DEL of the attachment is under way. It returns how
// many it released, on an error too.
func (s *Store) Reclaim(old time.Duration, over func(*Lease) (bool, error)) (n int, err error) {
	all, err := s.Owners()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, o := range all {
		released, err := s.reclaim(o, old, over)
		if released {
			n++
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reclaim lease of %s: %w", o.ContainerID, err))
		}
	}
	return n, errors.Join(errs...)
}

func (s *Store) reclaim(o Owner, old time.Duration, over func(*Lease) (bool, error)) (released bool, err error) {
	name, err := o.fileName()
	if err != nil {
		return false, err
	}
	l, err := s.open(name, time.Time{}) // without waiting
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Close()
	if since, err := l.since(); err != nil || time.Since(since) < old {
		return false, err
	}
	if yes, err := over(l); err != nil || !yes {
		return false, err
	}
	err = l.Release(nil)
	return err == nil, err
}
