// SPDX-License-Identifier: Apache-2.0

package router

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/l3edge/l3edge/pkg/core/route"
)

var (
	pfx  = netip.MustParsePrefix
	addr = netip.MustParseAddr
)

// speaker is a BGP speaker whose peer says what the test says.
type speaker struct {
	learned   map[netip.Prefix][]route.Via
	dirty     map[netip.Prefix]bool
	synced    bool
	last      func() // is called within the next Take, after it has looked
	reaches   bool   // the peer, as we were told
	asked     int    // for everything
	announced string
}

func (s *speaker) learn(prefix string, gws ...string) {
	if s.learned == nil {
		s.learned, s.dirty = map[netip.Prefix][]route.Via{}, map[netip.Prefix]bool{}
	}
	p := pfx(prefix)
	delete(s.learned, p)
	for _, gw := range gws {
		s.learned[p] = append(s.learned[p], route.Via{NextHop: addr(gw), Peer: addr("10.20.30.1")})
	}
	s.dirty[p] = true
}

func (s *speaker) Take() (out []route.Learned) {
	for p := range s.dirty {
		out = append(out, route.Learned{Prefix: p, Via: s.learned[p]})
	}
	clear(s.dirty)
	if s.last != nil {
		s.last()
		s.last = nil
	}
	return out
}

func (s *speaker) Learned() (out []route.Learned) {
	s.asked++
	for p, via := range s.learned {
		out = append(out, route.Learned{Prefix: p, Via: via})
	}
	return out
}

func (s *speaker) Announce(set []route.Announcement) error { s.announced = fmt.Sprint(set); return nil }
func (s *speaker) Synced() bool                            { return s.synced }
func (s *speaker) Reachable(f func(netip.Addr) bool)       { s.reaches = f(addr("10.20.30.1")) }

// kernel refuses what the kernel refuses: adding what is there, changing what is not, a gateway that is not on a link.
type kernel struct {
	fib    route.FIB
	topo   route.Topology
	log    strings.Builder // every change that took effect
	reads  int
	broken error
	deaf   error // of Lose
}

func (k *kernel) Read() (route.FIB, error)          { k.reads++; return maps.Clone(k.fib), k.broken }
func (k *kernel) Topology() (route.Topology, error) { return k.topo, nil }

func (k *kernel) Apply(plan route.Plan) (failures []route.Failure, err error) {
	for _, c := range plan {
		have, ok := k.fib[c.Prefix]
		switch {
		case c.Op == route.Add && ok:
			err = errors.New("file exists")
		case c.Op != route.Add && (!ok || !have.Equal(c.Old)):
			err = errors.New("no such process")
		case slices.ContainsFunc(c.New.Hops, func(h route.NextHop) bool { return h.Gateway == addr("10.20.30.99") }):
			err = errors.New("network is unreachable")
		default:
			err = nil
		}
		if err != nil {
			failures = append(failures, route.Failure{Change: c, Err: err})
			continue
		}
		if c.Op == route.Remove {
			delete(k.fib, c.Prefix)
		} else {
			k.fib[c.Prefix] = c.New
		}
		fmt.Fprintln(&k.log, c)
	}
	return failures, nil
}

func (k *kernel) Lose(gw route.NextHop) (moved []route.Moved, err error) {
	if k.deaf != nil {
		return nil, k.deaf
	}
	for _, e := range k.fib {
		rest := slices.DeleteFunc(slices.Clone(e.Hops), func(h route.NextHop) bool { return h == gw })
		if len(rest) > 0 && len(rest) < len(e.Hops) {
			moved = append(moved, route.Moved{From: e, To: route.NewEntry(rest...)})
		}
	}
	k.fib.Move(moved)
	if len(moved) > 0 {
		fmt.Fprintf(&k.log, "lost %s\n", gw.Gateway)
	}
	return moved, nil
}

func setup(left ...string) (*speaker, *kernel, *Router) {
	s := &speaker{}
	k := &kernel{fib: route.FIB{}, topo: route.Topology{
		OnLink: []route.OnLink{{Prefix: pfx("10.20.30.0/24"), Link: 2}}, Self: []netip.Addr{addr("10.20.30.62")},
	}}
	for _, p := range left {
		k.fib[pfx(p)] = route.NewEntry(route.NextHop{Gateway: addr("10.20.30.1"), Link: 2})
	}
	return s, k, New(Options{
		Speaker: s, Kernel: k, Log: slog.New(slog.DiscardHandler), SweepAfter: 2 * time.Minute,
		Policy:  route.Policy{Accept: []route.Accept{route.AcceptAll(pfx("10.10.0.0/16"))}, Own: []netip.Prefix{pfx("10.10.10.0/24")}},
		Intents: []route.Intent{{Prefix: pfx("10.10.10.0/24"), Why: "pod subnet", Sink: true}},
	})
}

// step runs a round and checks what it did to the kernel.
func step(t *testing.T, r *Router, k *kernel, name, want string) {
	t.Helper()
	k.log.Reset()
	if err := r.Sync(t.Context()); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if diff := cmp.Diff(want, k.log.String()); diff != "" {
		t.Errorf("%s: the kernel saw (-want +got):\n%s", name, diff)
	}
}

func TestSync(t *testing.T) {
	s, k, r := setup()
	step(t, r, k, "the own subnet is a sink", "+ 10.10.10.0/24: unreachable\n")
	if want := "[{10.10.10.0/24 pod subnet false 0}]"; s.announced != want {
		t.Errorf("announced %s, want %s", s.announced, want)
	}
	s.learn("10.10.20.0/24", "10.20.30.1")
	s.learn("10.10.30.0/24", "10.20.30.1")
	s.learn("0.0.0.0/0", "10.20.30.1")
	s.learn("10.10.10.0/24", "10.20.30.1")
	step(t, r, k, "routes are learned", "+ 10.10.20.0/24: via 10.20.30.1\n+ 10.10.30.0/24: via 10.20.30.1\n")
	s.learn("10.10.20.0/24", "10.20.30.1", "10.20.30.2")
	s.learn("10.10.30.0/24")
	step(t, r, k, "one changes, one goes", "~ 10.10.20.0/24: via 10.20.30.1 -> via 10.20.30.1 10.20.30.2\n- 10.10.30.0/24: via 10.20.30.1\n")
	reads := k.reads
	delete(k.fib, pfx("10.10.20.0/24"))
	r.Gone(pfx("10.10.20.0/24"))
	step(t, r, k, "a route that somebody removed comes back", "+ 10.10.20.0/24: via 10.20.30.1 10.20.30.2\n")
	if k.reads != reads {
		t.Error("one event made it read the whole table")
	}
	delete(k.fib, pfx("10.10.10.0/24"))
	step(t, r, k, "a round without news reads nothing", "")
	r.read = r.read.Add(-trust)
	step(t, r, k, "a later one finds what nobody told", "+ 10.10.10.0/24: unreachable\n")
	step(t, r, k, "nothing to do", "")
	k.topo.OnLink = nil
	r.TopologyChanged(true)
	step(t, r, k, "without the link nothing can be reached", "- 10.10.20.0/24: via 10.20.30.1 10.20.30.2\n")
	if s.reaches {
		t.Error("the speaker was not told")
	}
	k.topo.OnLink = []route.OnLink{{Prefix: pfx("10.20.30.0/24"), Link: 7}}
	r.TopologyChanged(true)
	step(t, r, k, "the link is back", "+ 10.10.20.0/24: via 10.20.30.1 10.20.30.2\n")
	r.SetIntents([]route.Intent{{Prefix: pfx("10.10.10.0/24"), Why: "pod subnet", Lacks: "forwarding is off"}})
	step(t, r, k, "without its proof the subnet is no sink and not announced", "- 10.10.10.0/24: unreachable\n")
	got := r.Status()
	if got.Rounds.OK != 10 || got.Rounds.Failed != 0 {
		t.Errorf("rounds %+v", got.Rounds)
	}
	got.Rounds = Rounds{}
	want := Status{
		Routes: []Route{{Prefix: pfx("10.10.20.0/24"), Via: []netip.Addr{addr("10.20.30.1"), addr("10.20.30.2")}}},
		Held:   []route.Held{{Prefix: pfx("10.10.10.0/24"), Why: "pod subnet", Lacks: "forwarding is off"}},
		Refused: []route.Refused{
			{Prefix: pfx("0.0.0.0/0"), Peer: addr("10.20.30.1"), Reason: "default route not wanted"},
			{Prefix: pfx("10.10.10.0/24"), Peer: addr("10.20.30.1"), Reason: "inside own pod subnet 10.10.10.0/24"},
		},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("status\n got %v\nwant %v", got, want)
	}
	if err := r.Flush(); err != nil || len(k.fib) != 0 {
		t.Errorf("flush left %v, %v", k.fib, err)
	}
}

func TestALostGatewayLosesItsTrafficAtOnce(t *testing.T) {
	s, k, r := setup()
	s.learn("10.10.20.0/24", "10.20.30.1", "10.20.30.2")
	s.learn("10.10.30.0/24", "10.20.30.1")
	step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n+ 10.10.20.0/24: via 10.20.30.1 10.20.30.2\n+ 10.10.30.0/24: via 10.20.30.1\n")
	r.Lose(addr("10.20.30.1"))
	step(t, r, k, "BGP has not said a word yet", "lost 10.20.30.1\n- 10.10.30.0/24: via 10.20.30.1\n")
	s.learn("10.10.20.0/24", "10.20.30.1", "10.20.30.2")
	step(t, r, k, "late news of the lost one changes nothing", "")
	s.learn("10.10.20.0/24", "10.20.30.2")
	step(t, r, k, "BGP withdraws: done already", "")
	s.learn("10.10.20.0/24", "10.20.30.1", "10.20.30.2")
	r.Find(addr("10.20.30.1"))
	step(t, r, k, "it is back", "~ 10.10.20.0/24: via 10.20.30.2 -> via 10.20.30.1 10.20.30.2\n+ 10.10.30.0/24: via 10.20.30.1\n")
	synctest.Test(t, func(t *testing.T) {
		r.Lose(addr("10.20.30.1"))
		step(t, r, k, "lost again", "lost 10.20.30.1\n- 10.10.30.0/24: via 10.20.30.1\n")
		time.Sleep(lostFor + time.Second)
		step(t, r, k, "BGP still stands by it", "~ 10.10.20.0/24: via 10.20.30.2 -> via 10.20.30.1 10.20.30.2\n+ 10.10.30.0/24: via 10.20.30.1\n")
	})
}

func TestAFlappingPeerDoesNotWearOutTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k, r := setup()
		var log strings.Builder
		r.o.Log = slog.New(slog.NewTextHandler(&log, nil))
		wake := time.NewTimer(time.Hour)
		r.o.Wake = func(d time.Duration) { wake.Reset(d) }
		step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
		k.log.Reset()
		reads := k.reads
		for i := range 1001 {
			if i%2 == 0 {
				s.learn("10.10.20.0/24", "10.20.30.1")
			} else {
				s.learn("10.10.20.0/24")
			}
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := strings.Count(k.log.String(), "\n"); n > 25 {
			t.Errorf("1001 flaps became %d changes in the kernel", n)
		}
		if n := strings.Count(log.String(), "prefix flaps"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log.String())
		}
		if r.Status().Damped != 1 || k.reads != reads {
			t.Errorf("damped %d, and the table was read %d times for it", r.Status().Damped, k.reads-reads)
		}
		for r.Status().Damped > 0 {
			<-wake.C
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := k.fib[pfx("10.10.20.0/24")]; !ok || r.Status().Damped != 0 || !strings.Contains(log.String(), "prefix is calm again") {
			t.Errorf("after the last flap: %v, damped %d", k.fib, r.Status().Damped)
		}
	})
}

func TestAPodsLinkIsNoReasonToReadEverything(t *testing.T) {
	s, k, r := setup()
	k.topo.Links = map[string]int{"ens18": 2}
	s.learn("10.10.20.0/24", "10.20.30.1")
	step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n+ 10.10.20.0/24: via 10.20.30.1\n")
	reads, asked := k.reads, s.asked
	k.topo.Links = map[string]int{"ens18": 2, "veth7": 9}
	r.TopologyChanged(false)
	step(t, r, k, "a link comes", "")
	r.TopologyChanged(false)
	step(t, r, k, "nothing changed", "")
	k.topo.Links = map[string]int{"ens18": 2}
	r.LinkChanged(9)
	step(t, r, k, "a pod's link goes", "")
	if k.reads != reads || s.asked != asked {
		t.Errorf("the kernel's table was read %d times, the speaker's %d", k.reads-reads, s.asked-asked)
	}
	delete(k.fib, pfx("10.10.20.0/24"))
	r.LinkChanged(2)
	step(t, r, k, "the uplink went down and is up again, and its routes have gone", "+ 10.10.20.0/24: via 10.20.30.1\n")
	k.topo.OnLink = []route.OnLink{{Prefix: pfx("10.20.30.0/24"), Link: 7}}
	r.TopologyChanged(false)
	step(t, r, k, "the uplink is another", "~ 10.10.20.0/24: via 10.20.30.1 -> via 10.20.30.1\n")
}

func TestSweep(t *testing.T) {
	t.Run("what was left is kept until all peers have told everything", func(t *testing.T) {
		s, k, r := setup("10.10.20.0/24", "10.10.30.0/24", "10.10.40.0/24")
		step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
		s.learn("10.10.20.0/24", "10.20.30.1")
		step(t, r, k, "a right route stays untouched", "")
		s.learn("10.10.40.0/24")
		step(t, r, k, "a withdrawal needs no sweep", "- 10.10.40.0/24: via 10.20.30.1\n")
		s.synced = true
		step(t, r, k, "the rest is swept", "- 10.10.30.0/24: via 10.20.30.1\n")
	})
	t.Run("a peer that never says so is waited for two minutes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, k, r := setup("10.10.30.0/24")
			step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
			time.Sleep(119 * time.Second)
			step(t, r, k, "not yet", "")
			time.Sleep(time.Second)
			step(t, r, k, "now", "- 10.10.30.0/24: via 10.20.30.1\n")
		})
	})
	t.Run("the synced peer's last routes and the sweep are one round", func(t *testing.T) {
		s, k, r := setup("10.10.20.0/24", "10.10.30.0/24")
		step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
		s.learn("10.10.20.0/24", "10.20.30.2")
		s.synced = true
		step(t, r, k, "both", "~ 10.10.20.0/24: via 10.20.30.1 -> via 10.20.30.2\n- 10.10.30.0/24: via 10.20.30.1\n")
	})
}

func TestRefusedByTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k, r := setup()
		var log strings.Builder
		r.o.Log = slog.New(slog.NewTextHandler(&log, nil))
		wakes := 0
		wake := time.NewTimer(time.Hour)
		r.o.Wake = func(d time.Duration) { wakes++; wake.Reset(d) }
		s.learn("10.10.20.0/24", "10.20.30.99")
		s.learn("10.10.30.0/24", "10.20.30.1")
		step(t, r, k, "one refusal does not stop the rest", "+ 10.10.10.0/24: unreachable\n+ 10.10.30.0/24: via 10.20.30.1\n")
		reads, asked := k.reads, s.asked
		<-wake.C
		step(t, r, k, "the kernel may not be as we think: it is read again", "")
		if k.reads != reads+1 || s.asked != asked {
			t.Errorf("the kernel's table was read %d times, the speaker's %d", k.reads-reads, s.asked-asked)
		}
		reads = k.reads
		for range 3 {
			<-wake.C
			step(t, r, k, "now and then it is tried again", "")
		}
		if n := strings.Count(log.String(), "refused by the kernel"); n != 1 || k.reads != reads || wakes > 5 {
			t.Errorf("told %d times, read %d times, woke %d times:\n%s", n, k.reads-reads, wakes, log.String())
		}
		s.learn("10.10.30.0/24", "10.20.30.99", "10.20.30.1")
		step(t, r, k, "a change of another one is refused, too", "")
		for _, p := range []string{"10.10.20.0/24", "10.10.30.0/24"} {
			if !slices.ContainsFunc(r.Status().Routes, func(x Route) bool {
				return x.Prefix == pfx(p) && x.Failed && x.Problem == "network is unreachable"
			}) {
				t.Errorf("status hides that %s is not as wanted: %v", p, r.Status().Routes)
			}
		}
		s.learn("10.10.20.0/24", "10.20.30.2")
		s.learn("10.10.30.0/24", "10.20.30.1")
		step(t, r, k, "what is possible is done", "+ 10.10.20.0/24: via 10.20.30.2\n")
		for _, x := range r.Status().Routes {
			if x.Failed || x.Problem != "" {
				t.Errorf("%v", x)
			}
		}
		if r.Status().Rounds.Failed != 0 {
			t.Errorf("rounds %+v", r.Status().Rounds)
		}
	})
}

func TestARoundThatFailsForgetsNothing(t *testing.T) {
	for name, breaks := range map[string]func(*kernel, *Router, error){
		"the table cannot be read":            func(k *kernel, r *Router, err error) { k.broken = err; r.TopologyChanged(true) },
		"a gateway cannot be taken out of it": func(k *kernel, r *Router, err error) { k.deaf = err; r.Lose(addr("10.20.30.1")) },
	} {
		t.Run(name, func(t *testing.T) {
			s, k, r := setup()
			s.learn("10.10.20.0/24", "10.20.30.1")
			s.learn("10.10.30.0/24", "10.20.30.2")
			s.learn("0.0.0.0/0", "10.20.30.2")
			step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n+ 10.10.20.0/24: via 10.20.30.1\n+ 10.10.30.0/24: via 10.20.30.2\n")
			s.learn("10.10.20.0/24")
			s.learn("10.10.30.0/24")
			s.learn("0.0.0.0/0")
			bad := errors.New("netlink is broken")
			breaks(k, r, bad)
			if err := r.Sync(t.Context()); !errors.Is(err, bad) {
				t.Errorf("got %v", err)
			}
			k.broken, k.deaf = nil, nil
			step(t, r, k, "what was withdrawn in a round that failed", "- 10.10.20.0/24: via 10.20.30.1\n- 10.10.30.0/24: via 10.20.30.2\n")
			if x := r.Status().Refused; len(x) != 0 {
				t.Errorf("refused without having been told: %v", x)
			}
		})
	}
}

func TestNotSweptBeforeItIsHeard(t *testing.T) {
	s, k, r := setup("10.10.20.0/24")
	step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n")
	s.last = func() { s.learn("10.10.20.0/24", "10.20.30.1"); s.synced = true } // too late for this round
	step(t, r, k, "the end of the table comes while a round begins", "")
	step(t, r, k, "it was a right route", "")
}

func TestWhoRemovedARouteIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k, r := setup()
		k.topo.Links = map[string]int{"ens18": 2}
		var log strings.Builder
		r.o.Log = slog.New(slog.NewTextHandler(&log, nil))
		all := 3 * some
		for i := range all {
			s.learn(fmt.Sprintf("10.10.%d.0/24", 20+i), "10.20.30.1")
		}
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		told := func() int { return strings.Count(log.String(), "removed by another program") }
		flush := func(f func(i int)) {
			for i := range all {
				p := pfx(fmt.Sprintf("10.10.%d.0/24", 20+i))
				delete(k.fib, p)
				r.Gone(p)
				f(i)
				if err := r.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * time.Second)
			if err := r.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		flush(func(i int) {
			if i == 0 {
				r.LinkChanged(2)
			}
			k.topo.Links = map[string]int{}
			r.TopologyChanged(false)
		})
		if told() != 0 {
			t.Errorf("the kernel, by taking the link down, is told of as another program:\n%s", log.String())
		}
		k.topo.Links = map[string]int{"ens18": 2}
		r.TopologyChanged(false)
		flush(func(int) {})
		if told() == 0 || told() > 3 || !strings.Contains(log.String(), fmt.Sprintf("count=%d", all-1)) || len(k.fib) != all+1 {
			t.Errorf("%d lines for %d routes that an operator removed, %d back:\n%s", told(), all, len(k.fib), log.String())
		}
	})
}

func TestPodsOfAnyPluginAreNoReasonToDecideAnew(t *testing.T) {
	s, k, r := setup()
	k.topo.Links = map[string]int{"ens18": 2}
	s.learn("10.10.20.0/24", "10.20.30.1")
	s.learn("0.0.0.0/0", "10.20.30.1") // refused, and no link makes that another
	step(t, r, k, "start", "+ 10.10.10.0/24: unreachable\n+ 10.10.20.0/24: via 10.20.30.1\n")
	asked := s.asked
	before := k.topo
	for i := range 3 {
		k.topo.Links = maps.Clone(k.topo.Links)
		k.topo.Links[fmt.Sprint("veth", i)] = 9 + i
		k.topo.Self = append(slices.Clone(k.topo.Self), addr("10.10.10.1")) // the gateway, on each pod's link
		k.topo.OnLink = append(slices.Clone(k.topo.OnLink), route.OnLink{Prefix: netip.PrefixFrom(addr(fmt.Sprintf("10.10.10.%d", 5+i)), 32), Link: 9 + i})
		r.TopologyChanged(false)
		r.SetIntents([]route.Intent{{Prefix: pfx("10.10.10.0/24"), Why: "pod subnet", Sink: true}})
		step(t, r, k, "a pod", "")
		if i == 0 {
			asked = s.asked // the gateway's address is new
		}
	}
	if s.asked != asked {
		t.Errorf("the speaker's table was read %d times", s.asked-asked)
	}
	k.topo = before
	s.learn("10.10.30.0/24", "fe80::1%swp1")
	s.learned[pfx("10.10.30.0/24")][0].Peer = addr("fe80::1%swp1")
	r.TopologyChanged(false)
	step(t, r, k, "a way through a link that is not there yet", "")
	k.topo.Links = map[string]int{"ens18": 2, "swp1": 40}
	r.TopologyChanged(false)
	step(t, r, k, "now it is", "+ 10.10.30.0/24: via fe80::1\n")
}
