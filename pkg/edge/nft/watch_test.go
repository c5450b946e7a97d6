// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// hears reads what has come in by now (the kernel delivers news within the change) and reports how many datagrams that was
// and whether one is about our tables.
func (w *Watch) hears(t *testing.T) (n int, ours bool) {
	t.Helper()
	raw, err := w.f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	err = raw.Control(func(fd uintptr) {
		for {
			size, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EAGAIN) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n, ours = n+1, ours || w.heard(buf[:size])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, ours
}

func TestWatchHearsOthersAndOnlyOfOurTables(t *testing.T) {
	h := nstest.New(t)
	d := plane(t, h)
	var w *Watch
	nstest.Do(t, h, func() (err error) { w, err = d.Watch(); return err })
	defer w.Close() //nolint:errcheck // a test's

	web := newSnapshot().add(service.Service{ClusterIPs: addrs("10.100.87.105"), Ports: tcp(80)}, "webfrontend", "10.10.10.2:8080").table(options())
	apply(t, d, web)
	apply(t, d, bulk(3000, "0").table(options())) // more than the buffer holds
	if n, _ := w.hears(t); n != 0 {
		t.Errorf("%d news of our own changes", n)
	}
	nstest.Sh(t, h, "nft add table ip other; nft add chain ip other c; nft delete table ip other")
	if n, ours := w.hears(t); n == 0 || ours {
		t.Errorf("of another's table: %d news, taken for ours: %v", n, ours)
	}
	for _, how := range []string{"delete table ip l3edge", "flush ruleset", "flush map ip l3edge svc", "flush chain ip l3edge prerouting", "add rule ip l3edge output drop"} {
		apply(t, d, web)
		nstest.Sh(t, h, "nft "+how)
		if _, ours := w.hears(t); !ours {
			t.Errorf("%s was not heard", how)
		}
		d.Forget()
		apply(t, d, web)
		holds(t, d, web)
	}
	if n, _ := w.hears(t); n != 0 {
		t.Errorf("%d news of our own repairs", n)
	}
}
