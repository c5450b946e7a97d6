// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// manifestOf is a Service s<i> on a VIP that ends in n.
func manifestOf(i, n int) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: s%d\nspec:\n  clusterIP: 10.100.0.%d\n  ports:\n  - port: 80\n---\n", i, n)
}

// Each step writes files ("name: services with their VIP's last number", "name" alone removes it); want is what the store
// then tells: only what has changed, however many others there are.
func TestOnlyWhatChangedIsTold(t *testing.T) {
	dir := t.TempDir()
	s := newStore(dir, memory{})
	text := func(objects string) string {
		var b strings.Builder
		for _, o := range strings.Fields(objects) {
			var i, n int
			if _, err := fmt.Sscanf(o, "%d=%d", &i, &n); err != nil {
				b.WriteString("kind: [\n---\n")
				continue
			}
			b.WriteString(manifestOf(i, n))
		}
		return b.String()
	}
	tick := time.Now()
	for _, step := range []struct{ sentence, write, want string }{
		{"everything, at first", "a.yaml: 1=1 2=2 3=3", "s1=1 s2=2 s3=3"},
		{"one of a file's", "a.yaml: 1=1 2=9 3=3", "s2=9"},
		{"one at the front moves the others, which is no news", "a.yaml: 4=4 1=1 2=9 3=3", "s4=4"},
		{"one in the middle goes", "a.yaml: 4=4 2=9 3=3", "s1 gone"},
		{"the order does not matter", "a.yaml: 3=3 2=9 4=4", ""},
		{"a second file may not have what the first has", "b.yaml: 3=7 5=5", "s5=5"},
		{"until the first lets go of it", "a.yaml: 2=9 4=4", "s3=7"},
		{"and wants it back", "a.yaml: 2=9 4=4 3=3", "s3=3"},
		{"a file that breaks keeps what it had", "a.yaml: 2=1 bad", ""},
		{"and counts again when it is mended", "a.yaml: 2=1 4=4 3=3", "s2=1"},
		{"an object twice in one file breaks it", "a.yaml: 2=5 2=6", ""},
		{"a file that goes takes its own along", "a.yaml", "s2 gone s3=7 s4 gone"},
		{"a file that is broken from the start gives what it has", "c.yaml: 8=8 bad 9=9", "s8=8 s9=9"},
	} {
		name, objects, _ := strings.Cut(step.write, ":")
		path := filepath.Join(dir, name)
		if objects == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, dir, name, text(objects))
			tick = tick.Add(time.Second)
			if err := os.Chtimes(path, tick, tick); err != nil {
				t.Fatal(err)
			}
		}
		s.read(map[string]bool{name: true}, false)
		var got []string
		for n, st := range s.book.Take() {
			if st == nil {
				got = append(got, n.Name+" gone")
				continue
			}
			_, last, _ := strings.Cut(st.Service.ClusterIPs[0].String(), "10.100.0.")
			got = append(got, n.Name+"="+last)
		}
		slices.Sort(got)
		if d := cmp.Diff(step.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.sentence, d)
		}
		if held := slices.Sorted(maps.Keys(s.wrong)); (strings.Contains(step.write, "bad") || strings.Contains(step.write, "2=6")) != (len(held) > 0) {
			t.Errorf("%s: wrong files: %v", step.sentence, held)
		}
	}
}

// A file that is written twice within one tick of the clock, at the same length, looks the same: an event is believed.
func TestNewsWithinOneTick(t *testing.T) {
	dir := t.TempDir()
	s := newStore(dir, memory{})
	then := time.Now()
	for n, news := range []bool{false, true} {
		path := write(t, dir, "a.yaml", manifestOf(1, n+1))
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
		s.read(map[string]bool{"a.yaml": true}, news)
		if d := s.book.Take(); len(d) != 1 {
			t.Errorf("write %d: %d services changed", n, len(d))
		}
	}
}

// BenchmarkOneChange is one service of as many others in one file, or in files of their own, from bytes to what is told. In
// files of their own it must be flat; in one file it is a matter of reading its bytes, not of understanding them.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{100, 1000, 10000, 30000} {
		var all strings.Builder
		for i := range n {
			all.WriteString(manifestOf(i, i%250))
		}
		b.Run(fmt.Sprintf("file of %d", n), func(b *testing.B) {
			spans := parse([]byte(all.String()), nil)
			for i := 0; b.Loop(); i++ {
				spans = parse([]byte(strings.Replace(all.String(), "10.100.0.77", fmt.Sprint("10.100.1.", i%250), 1)), spans)
			}
		})
		b.Run(fmt.Sprintf("%d files", n), func(b *testing.B) {
			dir := b.TempDir()
			for i := range n {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%d.yaml", i)), []byte(manifestOf(i, i%250)), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			s := newStore(dir, memory{})
			if err := s.scan(); err != nil {
				b.Fatal(err)
			}
			s.book.Take()
			path := filepath.Join(dir, "s77.yaml")
			for i := 0; b.Loop(); i++ {
				if err := os.WriteFile(path, []byte(manifestOf(77, i%250)+strings.Repeat("#", i%7)), 0o600); err != nil {
					b.Fatal(err)
				}
				s.read(map[string]bool{"s77.yaml": true}, true)
				s.book.Take()
				s.problems()
			}
		})
	}
}
