// SPDX-License-Identifier: Apache-2.0

package story

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/lab/place"
)

func TestWhatTheTellerPrints(t *testing.T) {
	for _, row := range []struct {
		what  string
		color bool
		tell  func(*teller)
		want  string
	}{
		{"prose is wrapped", false, func(t *teller) { t.say(strings.Repeat("word ", 17)) },
			"\n" + strings.TrimSpace(strings.Repeat("word ", 15)) + "\nword word\n\n"},
		{"output is trimmed to the terminal", false, func(t *teller) { t.output("a  \n" + strings.Repeat("é", 101) + "\n") },
			"a\n" + strings.Repeat("é", 99) + "…\n"},
		{"a claim that holds", false, func(t *teller) { t.check("it is so", nil) }, "  ✓ it is so\n"},
		{"colour only where it is wanted", true, func(t *teller) { t.check("it is so", nil) }, "  \x1b[32m✓\x1b[0m it is so\n"},
		{"who answered how often", false, func(t *teller) { t.bars([]string{"a", "b"}, map[string]int{"a": 2}) },
			"  a             2 ▇▇\n  b             0 \n"},
	} {
		t.Run(row.what, func(t *testing.T) {
			var out strings.Builder
			row.tell(&teller{out: &out, color: row.color})
			if d := cmp.Diff(row.want, out.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestAClaimThatDoesNotHoldEndsTheStory(t *testing.T) {
	var out strings.Builder
	boom := errors.New("boom")
	defer func() {
		w, ok := recover().(wrong)
		if !ok || !errors.Is(w.error, boom) || !strings.Contains(w.Error(), "it is so") {
			t.Errorf("the story ended with %v", w)
		}
		if out.String() != "  ✗ it is so\n" {
			t.Errorf("it printed %q", out.String())
		}
	}()
	(&teller{out: &out}).check("it is so", boom)
	t.Error("the story went on")
}

func TestAll(t *testing.T) {
	pod, vip := netip.MustParseAddr("10.10.10.2"), netip.MustParseAddrPort("10.100.87.105:80")
	there := place.Packet{Src: netip.AddrPortFrom(pod, 4000), Dst: vip}
	back := place.Packet{Src: vip, Dst: netip.AddrPortFrom(pod, 4000)}
	second := place.Packet{Src: netip.AddrPortFrom(pod, 4001), Dst: vip}
	other := place.Packet{Src: netip.AddrPortFrom(pod, 4000), Dst: netip.MustParseAddrPort("10.10.30.2:8080")}
	for _, row := range []struct {
		what    string
		packets []place.Packet
		want    string
	}{
		{"one connection", []place.Packet{there, back}, ""},
		{"none", nil, "nothing was captured"},
		{"two connections", []place.Packet{there, second}, "2 connections"},
		{"a packet to somebody else", []place.Packet{there, other}, "10.10.30.2.8080"},
	} {
		t.Run(row.what, func(t *testing.T) {
			err := all(row.packets, pod, vip)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
