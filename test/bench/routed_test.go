// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOneFails: a contender that fails makes bars that read short and say why, and the others are measured all the same.
func TestOneFails(t *testing.T) {
	asked := map[string]int{}
	all := []contender{{name: "routed"}, {name: "bird"}, {name: "frr"}}
	got := take(t.Context(), 3, all, func(_ context.Context, c contender) (measured, error) {
		asked[c.name]++
		if c.name == "frr" {
			return nil, errors.New("no vty\n  socket")
		}
		return measured{"time": {float64(asked[c.name])}}, nil
	})
	if asked["routed"] != 3 || asked["bird"] != 3 || asked["frr"] != 1 {
		t.Errorf("asked %v", asked)
	}
	var out bytes.Buffer
	r := &report{out: &out}
	got.put(r, Bar{Name: "x", Unit: Millis, Want: 1}, "time", "bird")
	got.put(r, Bar{Name: "x", Unit: Millis, Want: 1}, "time", "frr")
	got.put(r, Bar{Name: "x", Unit: Millis, Most: most(3)}, "time", "frr")
	want := `x-vs-bird: 2.00 ms, 2.00 ms, 1.0x, 1.0x ok
x-vs-frr: 2.00 ms, -, -, 1.0x short (frr: no vty socket)
x-vs-frr: 2.00 ms, -, -, at most 3.00 ms ok (frr: no vty socket)
`
	lines := slices.DeleteFunc(strings.SplitAfter(out.String(), "\n"), func(l string) bool { return strings.HasPrefix(l, "    ") })
	if got := strings.Join(lines, ""); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestTakeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	got := take(ctx, 5, []contender{{name: "routed"}}, func(context.Context, contender) (measured, error) {
		n++
		cancel()
		return measured{"time": {1}}, nil
	})
	if n != 1 || !errors.Is(got["routed"].err, context.Canceled) {
		t.Errorf("%d samples, %v", n, got["routed"].err)
	}
}

func TestMerge(t *testing.T) {
	all, boom := tallies{}, errors.New("boom")
	all.merge(tallies{"bird": {values: measured{"lost": {1}}}})
	all.merge(tallies{"bird": {values: measured{"lost": {2}}, err: boom}})
	if got := all["bird"]; !slices.Equal(got.values["lost"], []float64{1, 2}) || !errors.Is(got.err, boom) {
		t.Errorf("got %+v", got)
	}
}

func TestRouteChanges(t *testing.T) {
	msg := func(typ uint16, bits byte, dst ...byte) []byte {
		attr := append(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, 8), unix.RTA_DST), dst...)
		m := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg)
		m[unix.SizeofNlMsghdr+1] = bits
		m = append(m, attr...)
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], typ)
		return m
	}
	data := slices.Concat(
		msg(unix.RTM_NEWROUTE, 24, 10, 10, 10, 0),
		msg(unix.RTM_NEWROUTE, 25, 10, 10, 10, 0), // another length
		msg(unix.RTM_NEWROUTE, 24, 10, 10, 20, 0), // another prefix
		msg(unix.RTM_NEWADDR, 24, 10, 10, 10, 0),  // no route at all
		msg(unix.RTM_DELROUTE, 24, 10, 10, 10, 0),
	)
	prefix := netip.MustParsePrefix("10.10.10.0/24")
	if got := routeChanges(data, prefix); !slices.Equal(got, []bool{true, false}) {
		t.Errorf("got %v", got)
	}
	for i := range data { // what is cut off is not read
		if got := routeChanges(data[:i], prefix); len(got) > 1 {
			t.Errorf("%d bytes: %v", i, got)
		}
	}
}

// TestStreamCountsWhatIsLost lets a receiver forget packets.
func TestStreamCountsWhatIsLost(t *testing.T) {
	to, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	from, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{from: from, to: to, end: make(chan struct{}), done: make(chan struct{}), arrived: map[int64]bool{}}
	go s.receive()
	for n := range int64(10) {
		s.sent.Store(n + 1)
		if n == 3 {
			s.count() // what came before does not matter: of packets 1 to 4 one is missing
		}
		if n == 1 || n == 6 || n == 7 {
			continue
		}
		if _, err := from.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(n+1)), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for start := time.Now(); s.got.Load() < 7; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("%d packets arrived", s.got.Load())
		}
	}
	if n := s.lost(); n != 2 {
		t.Errorf("%d lost, want 2", n)
	}
}

// TestConfigurations looks at what each contender is told for what makes it comparable.
func TestConfigurations(t *testing.T) {
	full := setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}, Subnet: node1Pods, GR: true, Retry: true, BFD: 50 * time.Millisecond}
	tests := []struct {
		name   string
		render func(io.Writer, any) error
		s      setup
		has    []string
		hasNot []string
	}{
		{"bird, everything", birdConf.Execute, full, []string{"persist;", "graceful restart on;", "min rx interval 50 ms;", "bfd on;", "connect delay time 1;", "route 10.10.10.0/24 unreachable;", "as 65012;"}, []string{"disabled"}},
		{"bird, all at default", birdConf.Execute, setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}}, []string{"neighbor 10.20.30.1 external;"}, []string{"persist", "bfd", "connect delay", "protocol static"}},
		{"bird as the switch", birdConf.Execute, setup{Self: switchAddr, Switch: true, Peers: []netip.Addr{node1Addr}}, []string{"as 64512;", "RTS_DEVICE"}, nil},
		{"frr, everything", bgpdConf.Execute, full, []string{"router bgp 65012", "bgp graceful-restart", "bfd profile p", "timers connect 1", "network 10.10.10.0/24"}, []string{"redistribute"}},
		{"frr, all at default", bgpdConf.Execute, setup{Self: node1Addr, Peers: []netip.Addr{switchAddr}}, []string{"neighbor 10.20.30.1 remote-as external"}, []string{"timers", "bfd", "graceful", "  network"}},
	}
	for _, tt := range tests {
		var b strings.Builder
		if err := tt.render(&b, tt.s); err != nil {
			t.Fatal(err)
		}
		for _, x := range tt.has {
			if !strings.Contains(b.String(), x) {
				t.Errorf("%s: %q is missing in\n%s", tt.name, x, b.String())
			}
		}
		for _, x := range tt.hasNot {
			if strings.Contains(b.String(), x) {
				t.Errorf("%s: %q should not be in\n%s", tt.name, x, b.String())
			}
		}
	}
}
