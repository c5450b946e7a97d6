// SPDX-License-Identifier: Apache-2.0

package nodefile

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/l3edge/l3edge/pkg/core/node"
)

func sample(mtu int) node.Node {
	return node.Node{Name: "kubminion1", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24")}, MTU: mtu}
}

func TestWriteRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "node.json")
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read before anybody wrote: %v, want ErrNotExist", err)
	}
	if err := Write(path, sample(1500)); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if before.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, want 0644: plugins and l3ctl read it", before.Mode())
	}
	if err := Write(path, sample(1500)); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("writing the same node again replaced the file (%v): watchers would wake for nothing", err)
	}
	if err := Write(path, node.Node{}); err == nil {
		t.Error("an invalid node was written")
	}
	if n, err := Read(path); err != nil || n.MTU != 1500 {
		t.Errorf("after a refused write: %+v, %v", n, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".node-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files left: %v %v", left, err)
	}
}

func TestReadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.json")
	if err := os.WriteFile(path, []byte(`{"node":"a","podSubnets":["10.10.10.1/24"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.HasPrefix(err.Error(), path+": podSubnets[0]: ") {
		t.Errorf("got %v", err)
	}
}

func TestReadersNeverSeeAPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.json")
	if err := Write(path, sample(1)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				if err := Write(path, sample(w*1000+i)); err != nil {
					t.Error(err)
				}
				if _, err := Read(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
