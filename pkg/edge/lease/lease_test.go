// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/pool"
)

const childDir = "L3EDGE_LEASE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		claimAndReleaseForever(dir)
	}
	os.Exit(m.Run())
}

func set(t testing.TB, subnet string) pool.Set {
	t.Helper()
	r, err := pool.NewRange(netip.MustParsePrefix(subnet), netip.Addr{}, netip.Addr{}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return pool.Set{r}
}

func begin(t testing.TB, s *Store, id string) *Lease {
	t.Helper()
	l, err := s.Begin(Record{Owner: Owner{id, "eth0"}, Pod: "default/" + id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func next(t testing.TB, l *Lease, s pool.Set) netip.Addr {
	t.Helper()
	a, err := l.Next(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// names is every file of the store, cursors left out.
func names(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasPrefix(d.Name(), ".last.") {
			out = append(out, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOnePodsLife(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	s := At(dir)
	l := begin(t, s, "a")
	if !l.Fresh {
		t.Error("the first ADD does not find a fresh lease")
	}
	a := next(t, l, set(t, "10.10.10.0/24"))
	if err := l.Take(netip.MustParseAddr("fd00::2")); err != nil {
		t.Error(err)
	}
	want := []string{"10.10.10.2", "by-owner/a@eth0", "fd00::2"}
	if diff := cmp.Diff(want, names(t, dir)); diff != "" || a.String() != "10.10.10.2" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Addr != a || list[0].Pod != "default/a" || time.Since(list[0].Since) > time.Minute {
		t.Errorf("list: %+v, %v", list, err)
	}
	l.Close()

	again := begin(t, s, "a")
	held, err := again.Holds(nil)
	if again.Fresh || err != nil || len(held) != 2 {
		t.Errorf("a second ADD: fresh %t, holds %v, %v", again.Fresh, held, err)
	}
	again.Close()

	found, err := s.Find(Owner{"a", "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Release(nil); err != nil {
		t.Error(err)
	}
	found.Close()
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := s.Find(Owner{"a", "eth0"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after release: %v", err)
	}
}

func TestHintsAreOnlyHints(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "net"))
	pods := set(t, "10.0.0.0/24")
	a, b := begin(t, s, "a"), begin(t, s, "b")
	one, two := next(t, a, pods), next(t, b, pods)
	three := next(t, a, pods)
	for name, hint := range map[string][]netip.Addr{
		"none": nil, "right": {one, three}, "half": {three}, "doubled": {one, one}, "another pod's": {two, one}, "nobody's": {netip.MustParseAddr("10.9.9.9")},
	} {
		got, err := a.Holds(hint)
		slices.SortFunc(got, netip.Addr.Compare)
		if diff := cmp.Diff([]netip.Addr{one, three}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
			t.Errorf("hint %s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	if err := a.Release([]netip.Addr{two}); err != nil {
		t.Error(err)
	}
	if err := begin(t, s, "c").Take(two); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "pod default/b") {
		t.Errorf("b's address after a's release with a wrong hint: %v", err)
	}
}

func TestAddressesRest(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "net"))
	pods := set(t, "10.0.0.0/29") // .2 to .6
	var got []string
	for i := range 7 {
		l := begin(t, s, fmt.Sprint("pod", i))
		got = append(got, strings.TrimPrefix(next(t, l, pods).String(), "10.0.0."))
		if err := l.Release(nil); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	if diff := cmp.Diff("2 3 4 5 6 2 3", strings.Join(got, " ")); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(s.path(".last.0"), []byte("not an address"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := next(t, begin(t, s, "x"), pods); a.String() != "10.0.0.2" {
		t.Errorf("after a broken cursor: %s", a)
	}
}

func TestFullPoolSaysSoAndOneFreeAddressIsFound(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "net"))
	pods := set(t, "10.0.0.0/24")
	l := begin(t, s, "all")
	for range 253 {
		next(t, l, pods)
	}
	if _, err := l.Next(pods, 0); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "253") {
		t.Errorf("full: %v", err)
	}
	free := netip.MustParseAddr("10.0.0.77")
	if err := l.Drop(free); err != nil {
		t.Fatal(err)
	}
	if a := next(t, begin(t, s, "late"), pods); a != free {
		t.Errorf("got %s, want %s", a, free)
	}
}

func TestForeignFilesKeepTheirAddress(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	if err := os.MkdirAll(filepath.Join(dir, owners), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10.0.0.2"), []byte("4ab0\r\neth0"), 0o600); err != nil { // host-local's form
		t.Fatal(err)
	}
	s := At(dir)
	l := begin(t, s, "a")
	if a := next(t, l, set(t, "10.0.0.0/24")); a.String() != "10.0.0.3" {
		t.Errorf("got %s", a)
	}
	if err := l.Take(netip.MustParseAddr("10.0.0.2")); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "container 4ab0 (host-local's file)") {
		t.Errorf("take: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 2 || list[0].Owner != (Owner{"4ab0", "eth0"}) || !list[0].HostLocal || list[1].HostLocal {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestAnAttachmentIsOneProcessesAtATime(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "net"))
	l := begin(t, s, "a")
	if _, err := s.open("a@eth0", time.Now()); !errors.Is(err, ErrBusy) {
		t.Errorf("while an ADD works on it: %v", err)
	}
	done := make(chan error, 1)
	go func() { // a DEL that waits for the ADD, and finds that it has undone itself
		_, err := s.Find(Owner{"a", "eth0"})
		done <- err
	}()
	if err := l.Release(nil); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := <-done; !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the DEL that waited: %v", err)
	}
}

func TestParallelClaimsNeverMeet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	pods := set(t, "10.0.0.0/24")
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	var wg sync.WaitGroup
	for p := range 16 {
		wg.Go(func() {
			s := At(dir)
			for i := range 15 {
				id := fmt.Sprintf("p%d-%d", p, i)
				l, err := s.Begin(Record{Owner: Owner{id, "eth0"}})
				if err != nil {
					t.Error(err)
					return
				}
				a, err := l.Next(pods, 0)
				l.Close()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other, ok := seen[a]; ok {
					t.Errorf("%s given to %s and %s", a, other, id)
				}
				seen[a] = id
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 240 {
		t.Errorf("%d addresses given, want 240", len(seen))
	}
}

// claimAndReleaseForever is what a killed process was doing.
func claimAndReleaseForever(dir string) {
	r, err := pool.NewRange(netip.MustParsePrefix("10.0.0.0/27"), netip.Addr{}, netip.Addr{}, netip.Addr{})
	if err != nil {
		panic(err)
	}
	s := At(dir)
	for i := 0; ; i++ {
		l, err := s.Begin(Record{Owner: Owner{fmt.Sprint(os.Getpid(), "-", i), "eth0"}})
		if err != nil {
			panic(err)
		}
		a, err := l.Next(pool.Set{r}, 0)
		if err != nil {
			panic(err)
		}
		if err := l.Release([]netip.Addr{a}); err != nil {
			panic(err)
		}
		l.Close()
	}
}

func TestKillNineLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net")
	s := At(dir)
	for range 25 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); ; { // let it work, however slow the machine
			if _, err := os.Stat(s.path(".last.0")); err == nil || time.Now().After(deadline) {
				break
			}
		}
		for range rand.IntN(200) {
			_, _ = s.Owners()
		}
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the child was not killed: %v", err)
		}
		_ = os.Remove(s.path(".last.0"))
	}
	// Every address that is held belongs to an attachment that can be found, and releasing those frees everything.
	all, err := s.Owners()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		l, err := s.Find(o)
		if err != nil {
			t.Fatalf("%v: %v", o, err)
		}
		if l.Owner != o {
			t.Errorf("lease of %v says %v", o, l.Owner)
		}
		if err := l.Release(nil); err != nil {
			t.Error(err)
		}
		l.Close()
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("lost for ever: %v (after releasing %d)", left, len(all))
	}
}

func BenchmarkAddAndDel(b *testing.B) {
	for _, present := range []int{0, 240, 4000} {
		b.Run(fmt.Sprint(present), func(b *testing.B) {
			s := At(b.TempDir() + "/net")
			pods := set(b, "10.0.0.0/16")
			l := begin(b, s, "all")
			for range present {
				next(b, l, pods)
			}
			for b.Loop() {
				l, err := s.Begin(Record{Owner: Owner{"x", "eth0"}})
				if err != nil {
					b.Fatal(err)
				}
				a, err := l.Next(pods, 0)
				if err != nil {
					b.Fatal(err)
				}
				if err := l.Release([]netip.Addr{a}); err != nil {
					b.Fatal(err)
				}
				l.Close()
			}
		})
	}
}

// TestAFileThatSaysNothingIsItsOwnersStill: a store on a disk may come out of a power failure so.
func TestAFileThatSaysNothingIsItsOwnersStill(t *testing.T) {
	s := At(t.TempDir() + "/net")
	pods := set(t, "10.0.0.0/30")
	l := begin(t, s, "a")
	next(t, l, pods)
	l.Close()
	for _, text := range []string{"", "{", "\x00\x00"} {
		if err := os.WriteFile(s.path(owners, "a@eth0"), []byte(text), 0o600); err != nil { // in place: one inode with the address
			t.Fatal(err)
		}
		found, err := s.Find(Owner{"a", "eth0"})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if held, err := found.Holds(nil); found.Owner != (Owner{"a", "eth0"}) || !found.Guarded || err != nil || len(held) != 1 {
			t.Errorf("%q: %+v holds %v, %v", text, found.Record, held, err)
		}
		found.Close()
	}
	found, err := s.Find(Owner{"a", "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Release(nil); err != nil {
		t.Fatal(err)
	}
	if left, err := s.List(); err != nil || len(left) != 0 {
		t.Errorf("after release: %v, %v", left, err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(`{"containerID":"4ab0","ifname":"eth0","pod":"default/web","guarded":true}`)
	f.Add("4ab0\r\neth0")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRecord([]byte(text))
		describe([]byte(text))
		if err != nil {
			return
		}
		if again, err := parseRecord(r.encode()); err != nil || again != r {
			t.Errorf("%q: %+v becomes %+v, %v", text, r, again, err)
		}
	})
}
