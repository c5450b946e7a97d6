// SPDX-License-Identifier: Apache-2.0

package ra

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// ask is Neighbor from inside a namespace.
func ask(t *testing.T, h *netns.Handle, link string) (a netip.Addr, err error) {
	t.Helper()
	nstest.Do(t, h, func() error { a, err = Neighbor(t.Context(), link); return nil })
	return a, err
}

func linkLocalOf(t *testing.T, h *netns.Handle, link string) netip.Addr {
	t.Helper()
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		out := nstest.Sh(t, h, "ip -6 -o addr show dev "+link+" scope link -tentative")
		if f := strings.Fields(out); len(f) > 3 {
			return netip.MustParsePrefix(f[3]).Addr()
		}
	}
	t.Fatalf("%s has no link-local address", link)
	return netip.Addr{}
}

func TestTwoFindEachOther(t *testing.T) {
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, "ens18", "", b, "p1", "")
	addrA, addrB := linkLocalOf(t, a, "ens18"), linkLocalOf(t, b, "p1")
	if _, err := ask(t, a, "ens18"); !errors.Is(err, ErrSilent) || !strings.HasPrefix(err.Error(), "ens18: no router advertisement heard") {
		t.Errorf("alone: %v", err)
	}
	type answer struct {
		addr netip.Addr
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		var x answer
		for range 5 { // as a speaker does
			if x.addr, x.err = ask(t, b, "p1"); x.err == nil {
				break
			}
		}
		done <- x
	}()
	var got netip.Addr
	var err error
	for range 5 {
		if got, err = ask(t, a, "ens18"); err == nil {
			break
		}
	}
	if err != nil || got != addrB.WithZone("ens18") {
		t.Errorf("%v %v, want %v", got, err, addrB)
	}
	// b may have begun to listen only after a's words; a keeps asking in life, once more here.
	_, _ = ask(t, a, "ens18")
	if x := <-done; x.err != nil || x.addr != addrA.WithZone("p1") {
		t.Errorf("%v %v, want %v", x.addr, x.err, addrA)
	}
	if _, err := ask(t, a, "ens19"); err == nil || !strings.Contains(err.Error(), "find link ens19") {
		t.Errorf("a link that is not there: %v", err)
	}
}
