// SPDX-License-Identifier: Apache-2.0

// Package lease keeps the addresses of one network's pods as files: who holds what, without a lock file or a daemon.
//
// An attachment (container and interface) is one file, complete before it has a name, in by-owner/. Each address that
// it holds is one more hard link to that file, named by the address:
//
//	<dir>/10.10.10.2                   -\
//	<dir>/fd00:10::2                   --> one inode: {"containerID":"4ab0…","ifname":"eth0","pod":"default/web"}
//	<dir>/by-owner/4ab0…@eth0          -/
//
// link(2) fails when the name exists, so an address is given once however many processes ask, and a process killed
// between any two instructions leaves either nothing or files that the owner's DEL, or a GC, finds: the owner's name
// comes before the first address and goes after the last. Removing an address is guarded by a flock on the inode, which
// one attachment's own ADD, DEL and GC contend for and nobody else, and which a killed process cannot keep.
//
// The directory belongs on tmpfs: leases are true as long as the kernel that holds the namespaces.
package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/rawjson"
)

// Errors that callers tell apart.
var (
	ErrFull  = errors.New("no address is free")
	ErrTaken = errors.New("address is taken")
	ErrBusy  = errors.New("another process works on this attachment")
)

// lockWait is how long Begin and Find wait for another process that works on the same attachment.
const lockWait = 10 * time.Second

// owners is the directory of the attachments' own names inside a store.
const owners = "by-owner"

// Owner names an attachment.
type Owner struct {
	ContainerID string
	IfName      string
}

// Record is what a lease file says.
type Record struct {
	Owner
	Pod     string // namespace/name, where the runtime told
	Guarded bool   // the port is bound to the pod's addresses, which has to be undone
	Port    string // the node's end of the link, which is there as long as the pod has one; empty: not known
	Node    int    // inode of the namespace that has the port
}

// Store is the leases of one network.
type Store struct {
	// Beside are directories of other stores whose addresses are taken too: those of other networks of the node, and of
	// the reference plugin that a node comes from. They need not be there.
	Beside []string
	// Around are directories all of whose stores are beside this one. They are read when an address has been claimed, so that
	// two stores which begin at once see each other.
	Around []string

	dir string
}

// At is the store in dir, which need not exist yet.
func At(dir string) *Store { return &Store{dir: dir} }

// ErrTooLong says that no attachment of that container id can be made, nor has been.
var ErrTooLong = errors.New("container id and interface name are longer than the 254 letters that a lease file's name can hold")

// Lease is one attachment, locked against other processes until Close.
type Lease struct {
	Record
	Fresh bool // Begin made it; otherwise an earlier ADD did
	store *Store
	fd    int
	ino   uint64
}

// Begin makes the attachment or, if it exists, opens it; its record says then what r says, and Guarded what it said before
// too, which is still to be undone. It fails with ErrBusy when another process does not let go of it.
func (s *Store) Begin(r Record) (*Lease, error) {
	name, err := r.Owner.fileName()
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockWait)
	for {
		l, err := s.create(r, name)
		if !errors.Is(err, fs.ErrExist) {
			return l, err
		}
		if l, err = s.open(name, deadline); errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		}
		if err == nil {
			err = l.update(r)
		}
		return l, err
	}
}

// Find opens the attachment; the error is fs.ErrNotExist when there is none.
func (s *Store) Find(o Owner) (*Lease, error) {
	name, err := o.fileName()
	if errors.Is(err, ErrTooLong) {
		return nil, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return s.open(name, time.Now().Add(lockWait))
}

// create is tryCreate, making the directories when they are not there yet: another process may just be making them.
func (s *Store) create(r Record, name string) (*Lease, error) {
	l, err := s.tryCreate(r, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.path(owners), 0o755); err != nil {
			return nil, fmt.Errorf("make lease store: %w", err)
		}
		l, err = s.tryCreate(r, name)
	}
	if err != nil {
		return nil, fmt.Errorf("make lease in %s: %w", s.dir, err)
	}
	return l, nil
}

// tryCreate writes a file without a name, locks it and links it in place.
func (s *Store) tryCreate(r Record, name string) (*Lease, error) {
	fd, temp, err := openTemp(s.dir)
	if err != nil {
		return nil, err
	}
	l := &Lease{Record: r, Fresh: true, store: s, fd: fd}
	err = l.publish(s.path(owners, name))
	if temp != "" {
		_ = unlink(temp)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// publish gives the file its first name, when it is complete and locked and not before.
func (l *Lease) publish(path string) error {
	if err := writeAll(l.fd, l.encode()); err != nil {
		return err
	}
	if err := flock(l.fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if err := l.stat(); err != nil {
		return err
	}
	return l.link(path)
}

// encode is the text of a lease file.
func (r Record) encode() []byte {
	b := append(make([]byte, 0, 256), `{"containerID":`...)
	b = append(rawjson.AppendString(b, r.ContainerID), `,"ifname":`...)
	b = rawjson.AppendString(b, r.IfName)
	if r.Pod != "" {
		b = rawjson.AppendString(append(b, `,"pod":`...), r.Pod)
	}
	if r.Guarded {
		b = append(b, `,"guarded":true`...)
	}
	if r.Port != "" {
		b = rawjson.AppendString(append(b, `,"port":`...), r.Port)
		b = strconv.AppendInt(append(b, `,"node":`...), int64(r.Node), 10)
	}
	return append(b, "}\n"...)
}

// parseRecord reads what encode wrote.
func parseRecord(text []byte) (r Record, err error) {
	o, err := rawjson.ParseObject(text)
	if err != nil {
		return Record{}, err
	}
	err = errors.Join(o.Get("containerID").Decode(&r.ContainerID), o.Get("ifname").Decode(&r.IfName), o.Get("pod").Decode(&r.Pod), o.Get("guarded").Decode(&r.Guarded),
		o.Get("port").Decode(&r.Port), o.Get("node").Decode(&r.Node))
	if err == nil && (r.ContainerID == "" || r.IfName == "") {
		err = errors.New("no owner")
	}
	return r, err
}

// open waits for the lock of an existing file and makes sure that the name still means that file.
func (s *Store) open(name string, deadline time.Time) (*Lease, error) {
	path := s.path(owners, name)
	for {
		fd, err := openRead(path)
		if err != nil {
			return nil, fmt.Errorf("open lease: %w", err)
		}
		l := &Lease{store: s, fd: fd}
		for err = flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK; err = flock(fd, unix.LOCK_EX|unix.LOCK_NB) { //nolint:errorlint // flock returns bare numbers
			if time.Now().After(deadline) {
				l.Close()
				return nil, fmt.Errorf("lease of %s: %w", name, ErrBusy)
			}
			time.Sleep(time.Millisecond)
		}
		if err == nil {
			err = errors.Join(l.stat(), l.read(name))
		}
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("open lease of %s: %w", name, err)
		}
		if ino, err := inode(path); err == nil && ino == l.ino {
			return l, nil
		}
		l.Close() // released while we waited; look again
	}
}

// Take claims a. It is nil when this lease holds a already, ErrTaken (with the holder's name) when another does.
func (l *Lease) Take(a netip.Addr) error {
	path := l.store.path(a.String())
	err := l.link(path)
	if err == nil {
		other, err := l.store.beside(a)
		if other != "" {
			err = fmt.Errorf("%s is held by %s: %w", a, holder(other), ErrTaken)
		}
		if err != nil {
			return errors.Join(err, l.Drop(a))
		}
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return wrap("claim "+a.String(), err)
	}
	if ino, err := inode(path); err == nil && ino == l.ino {
		return nil
	}
	return fmt.Errorf("%s is held by %s: %w", a, holder(path), ErrTaken)
}

// holder says whose the file of an address is.
func holder(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "somebody (" + path + ")"
	}
	return describe(text)
}

// Holds lists the addresses of the lease. hint, which may be wrong or empty, saves reading the directory.
func (l *Lease) Holds(hint []netip.Addr) ([]netip.Addr, error) {
	links, err := l.links()
	if err != nil {
		return nil, err
	}
	var held []netip.Addr
	for _, a := range hint {
		if ino, err := inode(l.store.path(a.String())); err == nil && ino == l.ino && !slices.Contains(held, a) {
			held = append(held, a)
		}
	}
	if len(held) >= links-1 { // the owner's own name is one
		return held, nil
	}
	held = nil
	err = l.store.each(func(a netip.Addr, ino uint64) {
		if ino == l.ino {
			held = append(held, a)
		}
	})
	slices.SortFunc(held, netip.Addr.Compare)
	return held, err
}

// Release gives all addresses back and ends the attachment. hint is as in Holds.
func (l *Lease) Release(hint []netip.Addr) error {
	held, err := l.Holds(hint)
	if err != nil {
		return fmt.Errorf("release lease: %w", err)
	}
	name, err := l.Owner.fileName()
	if err != nil {
		return err
	}
	paths := make([]string, 0, len(held)+1)
	for _, a := range held {
		paths = append(paths, l.store.path(a.String()))
	}
	for _, p := range append(paths, l.store.path(owners, name)) {
		if err := unlink(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release lease: unlink %s: %w", p, err)
		}
	}
	return nil
}

// Drop gives one address back and keeps the attachment.
func (l *Lease) Drop(a netip.Addr) error {
	path := l.store.path(a.String())
	if ino, err := inode(path); err != nil || ino != l.ino {
		return nil
	}
	return wrap("give back "+a.String(), unlink(path))
}

// Close lets go of the lease, which stays as it is.
func (l *Lease) Close() { _ = unix.Close(l.fd) }

// fileName is the owner's name in by-owner. An @ cannot occur in a container id.
func (o Owner) fileName() (string, error) {
	name := o.ContainerID + "@" + o.IfName
	if len(name) > 255 { // NAME_MAX
		return "", ErrTooLong
	}
	if strings.ContainsAny(name, "/\x00") || strings.Contains(o.ContainerID, "@") {
		return "", fmt.Errorf("container id %q does not fit in a file name", o.ContainerID)
	}
	return name, nil
}

func (s *Store) path(parts ...string) string { return s.dir + "/" + strings.Join(parts, "/") }

func describe(text []byte) string {
	r, err := parseRecord(text)
	if err != nil {
		if o, err := parseForeign(text); err == nil {
			return fmt.Sprintf("container %s (host-local's file)", o.ContainerID)
		}
		return fmt.Sprintf("%q", strings.TrimSpace(string(text)))
	}
	if r.Pod != "" {
		return fmt.Sprintf("pod %s (container %s, %s)", r.Pod, r.ContainerID, r.IfName)
	}
	return fmt.Sprintf("container %s, %s", r.ContainerID, r.IfName)
}

func wrap(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", verb, err)
}
