// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/service"
)

// (sleep 1; cat new.yaml) > web.yaml: from when the shell empties the file until the last of the new text is there, what it
// said before counts, however well the text so far may parse.
func TestAFileCountsWhenItsWriterIsDone(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "web.yaml", webfrontend)
	deltas := make(chan service.Delta, 100)
	go func() {
		_ = Watch(t.Context(), dir, "", func(d service.Delta, _ error) { deltas <- d })
	}()
	if d := <-deltas; d[web] == nil || len(d[web].Endpoints[0]) != 2 {
		t.Fatalf("at first: %v", d)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(webfrontend, "10.100.87.105", "10.100.87.106", 1)
	for len(text) > 0 { // each piece is seen alone: this is longer than news are gathered
		n := min(len(text), 150)
		if _, err := f.WriteString(text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
		for wait := time.After(2 * burst); ; {
			select {
			case d := <-deltas:
				if len(d) > 0 {
					t.Fatalf("%d bytes before the end: %v", len(text), d)
				}
				continue
			case <-wait:
			}
			break
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case d := <-deltas:
			if len(d) == 0 {
				continue
			}
			if st := d[web]; st == nil || st.Service.ClusterIPs[0].String() != "10.100.87.106" || len(st.Endpoints[0]) != 2 {
				t.Fatalf("when the writer is done: %v", d)
			}
			return
		case <-time.After(5 * time.Second):
			t.Fatal("nothing when the writer is done")
		}
	}
}

func TestAnEmptyFileTakesNothingAway(t *testing.T) {
	dir, remember := t.TempDir(), t.TempDir()
	path := write(t, dir, "web.yaml", webfrontend)
	s := newStore(dir, memoryFor(remember, dir))
	if err := s.scan(); err != nil {
		t.Fatal(err)
	}
	s.book.Take()
	s.remember(1)
	write(t, dir, "web.yaml", "---\n")
	for when, s := range map[string]store{"at once": s, "after a restart": newStore(dir, memoryFor(remember, dir))} {
		s.read(map[string]bool{"web.yaml": true}, true)
		d := s.book.Take()
		if when == "at once" && len(d) > 0 || when == "after a restart" && d[web] == nil {
			t.Errorf("%s: %v", when, d)
		}
		if ps := s.problems(); len(ps) != 1 || ps[0].Error() != path+": empty; what it said stays in force until the file is removed" {
			t.Errorf("%s: %v", when, ps)
		}
	}
	write(t, dir, "new.yaml", "")
	s.read(map[string]bool{"new.yaml": true, "web.yaml": true}, true)
	if ps := s.problems(); len(ps) != 1 {
		t.Errorf("a file that never said anything may be empty: %v", ps)
	}
}

// Whoever writes the file while it is read waits for a moment, and nobody sees half of it.
func TestReadersSeeWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	texts := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 50_000)}
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := os.WriteFile(path, []byte(texts[i%2]), 0o600); err != nil {
				done <- err
				return
			}
		}
	}()
	seen := map[bool]int{}
	for deadline := time.Now().Add(10 * time.Second); seen[false] < 200 && time.Now().Before(deadline); {
		w, err := readWhole(path, 0)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if seen[w.busy]++; !w.busy && string(w.text) != texts[0] && string(w.text) != texts[1] {
			t.Fatalf("%d bytes that were never all", len(w.text))
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if seen[false] == 0 {
		t.Errorf("never a whole file; busy %d times", seen[true])
	}
	t.Logf("whole %d times, busy %d times", seen[false], seen[true])
}
