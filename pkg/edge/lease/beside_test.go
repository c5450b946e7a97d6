// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAddressesOfStoresBesideAreTaken: two networks of a node on one subnet, and host-local's files of a node that has changed.
func TestAddressesOfStoresBesideAreTaken(t *testing.T) {
	dir := t.TempDir()
	hostLocal := filepath.Join(dir, "host-local")
	if err := os.MkdirAll(hostLocal, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.0.0.2", "10.0.0.3"} {
		if err := os.WriteFile(filepath.Join(hostLocal, a), []byte("old\r\neth0"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, other, pods := At(filepath.Join(dir, "one")), At(filepath.Join(dir, "other")), set(t, "10.0.0.0/29")
	other.Beside = []string{filepath.Join(dir, "missing"), hostLocal, filepath.Join(dir, "one")}
	a := begin(t, one, "a")
	if err := a.Take(netip.MustParseAddr("10.0.0.4")); err != nil {
		t.Fatal(err)
	}
	b := begin(t, other, "b")
	if got := next(t, b, pods); got != netip.MustParseAddr("10.0.0.5") {
		t.Errorf("got %s, which is taken", got)
	}
	for addr, who := range map[string]string{"10.0.0.3": "container old", "10.0.0.4": "pod default/a"} {
		if err := b.Take(netip.MustParseAddr(addr)); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), addr+" is held by "+who) {
			t.Errorf("asked for %s: %v", addr, err)
		}
	}
	if n, err := other.Count(func(a netip.Addr) bool { _, ok := pods.Find(a); return ok }); n != 4 || err != nil {
		t.Errorf("%d addresses are held, %v, want 4", n, err)
	}
	if held, err := b.Holds(nil); err != nil || len(held) != 1 {
		t.Errorf("b holds %v, %v, want one address", held, err)
	}
	next(t, b, pods)
	if _, err := b.Next(pods, 0); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "5 addresses in use, 2 of them by files in "+hostLocal+", 1 of them by files in "+dir+"/one:") {
		t.Errorf("in a full pool: %v", err)
	}
	names, err := Networks(dir)
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"host-local", "one", "other"}) {
		t.Errorf("networks: %v, %v", names, err)
	}
	if names, err := Networks(filepath.Join(dir, "missing")); err != nil || names != nil {
		t.Errorf("networks of nothing: %v, %v", names, err)
	}
}

// TestStoresThatBeginAtOnceSeeEachOther: neither has a directory yet when the other is opened. A second name of a store's own
// directory is no other store.
func TestStoresThatBeginAtOnceSeeEachOther(t *testing.T) {
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	one, other, pods := At(filepath.Join(dir, "one")), At(filepath.Join(dir, "other")), set(t, "10.0.0.0/29")
	one.Around, other.Around = []string{dir, link}, []string{link, dir}
	b := begin(t, other, "b")
	first := next(t, begin(t, one, "a"), pods)
	if got := next(t, b, pods); got == first {
		t.Errorf("both got %s", got)
	}
	if err := b.Take(first); !errors.Is(err, ErrTaken) {
		t.Errorf("asked for %s: %v", first, err)
	}
	if n, err := one.Count(func(netip.Addr) bool { return true }); n != 2 || err != nil {
		t.Errorf("%d addresses are held, %v, want 2", n, err)
	}
}

// TestWhoGoesOnWritesWhatItKnows: but never that there is nothing to undo.
func TestWhoGoesOnWritesWhatItKnows(t *testing.T) {
	s, o := At(t.TempDir()), Owner{"a", "eth0"}
	for _, step := range []struct{ say, want Record }{
		{Record{Owner: o}, Record{Owner: o}},
		{Record{Owner: o, Pod: "default/a-pod-with-a-long-name", Guarded: true, Port: "veth1", Node: 7}, Record{Owner: o, Pod: "default/a-pod-with-a-long-name", Guarded: true, Port: "veth1", Node: 7}},
		{Record{Owner: o}, Record{Owner: o, Guarded: true}},
	} {
		l, err := s.Begin(step.say)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		found, err := s.Find(o)
		if err != nil || found.Record != step.want || l.Record != step.want {
			t.Errorf("said %+v: %+v and %+v, %v, want %+v", step.say, l.Record, found.Record, err, step.want)
		}
		found.Close()
	}
}

func TestNamesThatAreTooLong(t *testing.T) {
	s := At(t.TempDir())
	o := Owner{strings.Repeat("f", 251), "eth0"}
	if _, err := s.Begin(Record{Owner: o}); !errors.Is(err, ErrTooLong) {
		t.Errorf("made: %v", err)
	}
	if _, err := s.Find(o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found: %v", err)
	}
	o.ContainerID = o.ContainerID[1:]
	if l, err := s.Begin(Record{Owner: o}); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

// TestAWaiterDoesNotGetWhatWasReleased: who waits for an attachment's lock while it is released and made anew gets the new one.
func TestAWaiterDoesNotGetWhatWasReleased(t *testing.T) {
	dir := t.TempDir()
	s := At(dir)
	first := begin(t, s, "a")
	path := s.path(owners, "a@eth0")
	got := make(chan *Lease, 1)
	go func() {
		l, err := s.Find(Owner{"a", "eth0"})
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	for deadline := time.Now().Add(5 * time.Second); opened(t, path) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	if err := first.Release(nil); err != nil {
		t.Fatal(err)
	}
	second := begin(t, s, "a")
	first.Close()
	second.Close()
	if l := <-got; l == nil || l.ino != second.ino {
		t.Errorf("got %+v, want the one that is there", l)
	}
}

// opened counts the descriptors that were opened by a path: a lease that this process made has none.
func opened(t *testing.T, path string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}
