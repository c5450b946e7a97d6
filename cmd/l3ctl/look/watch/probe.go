// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/frame"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/core/walk"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/tap"
	"github.com/l3edge/l3edge/pkg/lab"
)

// observation is what was seen of one real connection.
type observation struct {
	Agrees bool        `json:"agrees"`
	Words  string      `json:"words"`
	Points []pointSeen `json:"points"` // one for each step of the prediction that can be seen
}

// pointSeen is whether the predicted packet passed a point, and how long after the first.
type pointSeen struct {
	walk.Point
	Watched bool          `json:"watched"`
	Seen    bool          `json:"seen"`
	After   time.Duration `json:"afterNanoseconds,omitempty"`
}

// sighting is the first packet of a connection at a point.
type sighting struct {
	at   walk.Point
	time time.Time
	frame.Packet
}

// probed makes one connection, and predicts once more for the backend that was chosen.
func probed(w walk.World, where *look.Scope, from walk.End, to netip.AddrPort) (traced, error) {
	if from.Host == nil {
		return traced{}, fmt.Errorf("FROM: %s is on no host that was seen, so nobody can connect from there", from.Addr)
	}
	ways, err := entrances(w, where)
	if err != nil {
		return traced{}, err
	}
	watch, watched, err := openTaps(w, ways)
	if err != nil {
		return traced{}, err
	}
	entrance, ok := ways[from.Host.Name]
	if !ok {
		_, _ = watch()
		return traced{}, fmt.Errorf("FROM: %s is another host: run l3ctl there", from.Host.Name)
	}
	home := hostNetns(entrance)
	if from.Pod != nil {
		home = entrance + from.Pod.Netns
	}
	local, dialErr := connect(home, to)
	sightings, err := watch()
	if err != nil {
		return traced{}, err
	}
	sightings = ofConnection(sightings, local, to)
	path := walk.Trace(w, from, to, netip.AddrPort{})
	for _, s := range sightings {
		if slices.Contains(path.Backends, s.Dst) {
			path = walk.Trace(w, from, to, s.Dst)
		}
	}
	return traced{Path: path, Observed: compare(path, sightings, watched, dialErr)}, nil
}

// entrances are the root directories by which hosts' namespaces are reached; "" is this host.
func entrances(w walk.World, where *look.Scope) (map[string]string, error) {
	out := map[string]string{}
	if where.Lab == "" {
		out[w[0].Name] = ""
		return out, nil
	}
	state, err := lab.ReadState("")
	if err != nil {
		return nil, err
	}
	for _, h := range state.Hosts {
		out[h.Name] = fmt.Sprintf("/proc/%d/root", h.Pid)
	}
	return out, nil
}

// hostNetns is a host's own namespace by its entrance.
func hostNetns(entrance string) string {
	if entrance == "" {
		return "/proc/self/ns/net"
	}
	return entrance[:len(entrance)-len("root")] + "ns/net"
}

// openTaps watches every interface that is up, of every host that can be entered and of its pods. The function that it
// returns waits a moment and tells what began there.
func openTaps(w walk.World, ways map[string]string) (func() ([]sighting, error), map[walk.Point]bool, error) {
	watched := map[walk.Point]bool{}
	var mu sync.Mutex
	var all []sighting
	var wg sync.WaitGroup
	stop := make(chan struct{})
	open := func(ns string, at walk.Point) error {
		h, err := netns.Open(ns)
		if err != nil {
			return err
		}
		defer h.Close() //nolint:errcheck // a handle
		var t *tap.Tap
		if err := h.Do(func() (err error) { t, err = tap.Open(at.Link); return err }); err != nil {
			return err
		}
		watched[at] = true
		wg.Go(func() {
			seen := follow(t, at, stop)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, seen...)
		})
		return nil
	}
	var errs []error
	for _, h := range w {
		entrance, ok := ways[h.Name]
		if !ok {
			continue
		}
		for _, p := range tapPoints(h) {
			ns := hostNetns(entrance)
			if p.Netns != "" {
				ns = entrance + p.Netns
			}
			errs = append(errs, open(ns, p))
		}
	}
	finish := func() ([]sighting, error) {
		time.Sleep(50 * time.Millisecond) // the last hop of a connection that is up has been seen long ago; one refused may lag
		close(stop)
		wg.Wait()
		slices.SortFunc(all, func(a, b sighting) int { return a.time.Compare(b.time) })
		return all, nil
	}
	if err := errors.Join(errs...); err != nil {
		_, _ = finish()
		return nil, nil, fmt.Errorf("watch interfaces: %w", err)
	}
	time.Sleep(warmUp)
	return finish, watched, nil
}

// warmUp is how long the kernel takes, after the first packet socket asked, until every frame carries its time.
const warmUp = 50 * time.Millisecond

// tapPoints are the interfaces of a host and of its pods.
func tapPoints(h view.Host) []walk.Point {
	var out []walk.Point
	for _, l := range h.Links {
		if l.Up && l.Name != "lo" {
			out = append(out, walk.Point{Host: h.Name, Link: l.Name})
		}
	}
	for _, p := range h.Pods {
		if p.Alive && p.Have != nil && p.Have.MAC != "" {
			out = append(out, walk.Point{Host: h.Name, Netns: p.Netns, Link: p.IfName})
		}
	}
	return out
}

// follow notes the beginnings of connections until it is stopped and the tap is quiet.
func follow(t *tap.Tap, at walk.Point, stop chan struct{}) []sighting {
	defer t.Close() //nolint:errcheck // only read
	var out []sighting
	buf := make([]byte, 128)
	for {
		n, _, when, err := t.Read(buf)
		if err != nil {
			select {
			case <-stop:
				return out
			default:
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return out // the interface has gone
			}
			continue
		}
		if p, ok := frame.Parse(buf[:n]); ok && p.First {
			out = append(out, sighting{at, when, p})
		}
	}
}

// probeWait is how long a probe waits for its connection.
const probeWait = 2 * time.Second

// connect makes the connection in a namespace and closes it. It returns the address that it came from.
func connect(ns string, to netip.AddrPort) (local netip.AddrPort, dialErr error) {
	h, err := netns.Open(ns)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer h.Close() //nolint:errcheck // a handle
	ctx, cancel := context.WithTimeout(context.Background(), probeWait)
	defer cancel()
	_ = h.Do(func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
		if err != nil {
			dialErr = err
			return nil
		}
		local, _ = netip.ParseAddrPort(c.LocalAddr().String())
		return c.Close()
	})
	return local, dialErr
}

// ofConnection leaves out the beginnings of others' connections: those from the same address to the same place, but from
// another port.
func ofConnection(all []sighting, local netip.AddrPort, to netip.AddrPort) []sighting {
	return slices.DeleteFunc(all, func(s sighting) bool {
		return local.IsValid() && s.Src.Addr() == local.Addr() && s.Src.Port() != local.Port() && s.Dst == to
	})
}

// compare holds the prediction's points against what was seen.
func compare(p walk.Path, seen []sighting, watched map[walk.Point]bool, dialErr error) *observation {
	o := &observation{Agrees: true}
	var begin time.Time
	parted := ""
	for _, s := range p.Steps {
		if s.Point == nil {
			continue
		}
		x := pointSeen{Point: *s.Point, Watched: watched[*s.Point]}
		i := slices.IndexFunc(seen, func(g sighting) bool {
			return g.at == *s.Point && g.Src.Addr() == s.Src && g.Dst == s.Dst
		})
		if i >= 0 {
			if begin.IsZero() {
				begin = seen[i].time
			}
			x.Seen, x.After = true, seen[i].time.Sub(begin)
		} else if x.Watched && parted == "" {
			parted = fmt.Sprintf("%s of %s, where %s > %s was expected", s.Where, s.Host, s.Src, s.Dst)
		}
		o.Points = append(o.Points, x)
	}
	ended := map[bool]string{true: "the connection came up", false: fmt.Sprintf("it did not come up: %v", dialErr)}[dialErr == nil]
	switch {
	case parted != "":
		o.Agrees, o.Words = false, ended+"; they part at "+parted
		for _, g := range seen {
			o.Words += fmt.Sprintf("\n           seen: %s %s %s > %s", g.at.Host, g.at.Link, g.Src, g.Dst)
		}
	case (dialErr == nil) != (p.Verdict == walk.Arrives) && p.Verdict != walk.Beyond:
		o.Agrees, o.Words = false, ended+", against the prediction"
	default:
		o.Words = ended + ", as predicted"
	}
	return o
}
