// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/frame"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/core/walk"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/pcapng"
	"github.com/l3edge/l3edge/pkg/edge/tap"
	"github.com/l3edge/l3edge/pkg/lab"
)

// pointNames are the places to capture at, from the inside to the outside.
var pointNames = []string{"pod", "veth", "bridge", "uplink"}

// capturing is one capture under way.
type capturing struct {
	taps    []*tap.Tap
	names   []string // of the points
	at      []pcapng.Interface
	filter  frame.Filter
	join    frame.Joiner
	file    *pcapng.Writer // nil: only the live view
	live    io.Writer      // nil: quiet
	left    int            // bytes that may still be captured
	packets int
}

// caught is one frame.
type caught struct {
	point, length int
	at            time.Time
	data          []byte
}

type captureFlags struct {
	all           bool
	points        []string
	service, file string
	port          uint16
	duration      time.Duration
	size          int
	quiet         bool
	snap          int
}

func newCapture() *cobra.Command {
	f := captureFlags{duration: 10 * time.Second, size: 64 << 20, snap: 65535}
	cmd := &cobra.Command{
		Use: "capture POD", Short: "Capture a pod's packets in its namespace, on its veth, the bridge and the uplink at once", Args: cobra.ExactArgs(1),
		Long: `Capture a pod's packets in its namespace, on its veth, on the bridge and on the uplink at once, into one pcapng file with named
interfaces (Wireshark opens it) and before your eyes. Both legs of a connection to a service have one number: the pod's, and the
one to the endpoint, whether a rule or portald made it. Nothing is needed inside the pod.`,
		Example: "  l3ctl capture web8080-1 --file=web.pcapng --duration=30s\n  l3ctl capture --lab kubminion1/web8080-1 --service=webfrontend --point=veth --point=uplink   # the article's two windows",
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all-points", false, "at every point, which is the default")
	fl.StringArrayVar(&f.points, "point", nil, "only at this point: pod, veth, bridge or uplink; repeatable")
	fl.StringVar(&f.service, "service", "", "only connections to this service")
	fl.Uint16Var(&f.port, "port", 0, "only connections to this port, a service's or an endpoint's")
	fl.StringVar(&f.file, "file", "", "pcapng `file` to write")
	fl.DurationVar(&f.duration, "duration", f.duration, "end after this `time`")
	fl.IntVar(&f.size, "max-size", f.size, "end after so many bytes of packets")
	fl.IntVar(&f.snap, "snap", f.snap, "keep at most so many bytes of each packet")
	fl.BoolVar(&f.quiet, "quiet", false, "do not show packets")
	look.Choose(cmd, "point", pointNames...)
	cmd.ValidArgsFunction = look.Complete(1, look.Pods)
	where := &look.Scope{}
	fl.StringVar(&where.Lab, "lab", "", "look at all hosts of the lab with this `name`")
	fl.Lookup("lab").NoOptDefVal = "lab"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if where.Lab != "" {
			if _, err := lab.ReadState(""); err != nil {
				return inside(where.Lab)
			}
		}
		return f.run(cmd, where, args[0])
	}
	return cmd
}

func (f captureFlags) run(cmd *cobra.Command, where *look.Scope, name string) error {
	for i, p := range f.points {
		if !slices.Contains(pointNames, p) {
			return fmt.Errorf("--point[%d]: %q is none of %s", i, p, strings.Join(pointNames, ", "))
		}
	}
	if f.all || len(f.points) == 0 {
		f.points = pointNames
	}
	hs, err := where.Look(cmd)
	if err != nil {
		return err
	}
	h, p, ok := podNamed(hs, name)
	if a, perr := netip.ParseAddr(name); perr == nil {
		h, p, ok = walk.World(hs).Pod(a)
	}
	if !ok || !p.Alive {
		return fmt.Errorf("POD: no living pod is called %q", name)
	}
	ways, err := entrances(hs, where)
	if err != nil {
		return err
	}
	c := &capturing{left: f.size}
	if c.filter, err = f.filter(h, p); err != nil {
		return err
	}
	c.join.Services = c.filter.Services
	defer c.close()
	if err := c.open(ways[h.Name], h, p, f.points); err != nil {
		return err
	}
	if !f.quiet {
		c.live = cmd.OutOrStdout()
	}
	return f.into(cmd.Context(), c, cmd.ErrOrStderr())
}

// into captures into the file, if one is asked for.
func (f captureFlags) into(ctx context.Context, c *capturing, log io.Writer) (err error) {
	if f.file != "" {
		out, err := os.OpenFile(f.file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("--file: %w", err)
		}
		defer func() { err = errors.Join(err, out.Close()) }()
		if c.file, err = pcapng.New(out, "l3ctl capture", f.snap, c.at); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.file.Flush()) }()
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, f.duration)
	defer cancel()
	fmt.Fprintf(log, "capturing on %s for %s; ^C ends it\n", strings.Join(c.names, ", "), f.duration) //nolint:errcheck // a remark
	lost, err := c.run(ctx, f.snap)
	fmt.Fprintf(log, "%d packets", c.packets) //nolint:errcheck // a remark
	if lost > 0 {
		fmt.Fprintf(log, ", %d more were lost", lost) //nolint:errcheck // a remark
	}
	if f.file != "" {
		fmt.Fprintf(log, " in %s", f.file) //nolint:errcheck // a remark
	}
	fmt.Fprintln(log) //nolint:errcheck // a remark
	return err
}

// filter is what belongs to the pod.
func (f captureFlags) filter(h view.Host, p view.Pod) (frame.Filter, error) {
	out := frame.Filter{Pod: p.Addrs, Port: f.port}
	for _, l := range h.Links {
		for _, a := range l.Addrs {
			if !a.Addr().IsLoopback() && !a.Addr().IsLinkLocalUnicast() {
				out.Host = append(out.Host, a.Addr())
			}
		}
	}
	named := walk.World{h}.Service(f.service)
	if f.service != "" && len(named) == 0 {
		return out, fmt.Errorf("--service: portald of %s has no service %q", h.Name, f.service)
	}
	for _, x := range h.Portald.Portals {
		s := frame.Service{At: netip.AddrPortFrom(x.VIP, x.Port), Endpoints: x.Endpoints}
		out.Services = append(out.Services, s)
		if slices.ContainsFunc(named, func(n view.Portal) bool { return n.VIP == x.VIP && n.Port == x.Port }) {
			out.Only = append(out.Only, s)
		}
	}
	return out, nil
}

// open taps the points.
func (c *capturing) open(entrance string, h view.Host, p view.Pod, points []string) error {
	for _, name := range pointNames {
		if !slices.Contains(points, name) {
			continue
		}
		ns, link := hostNetns(entrance), map[string]string{"pod": p.IfName, "veth": p.Veth, "bridge": p.Bridge, "uplink": h.Uplink()}[name]
		if name == "pod" {
			ns = entrance + p.Netns
		}
		n, err := netns.Open(ns)
		if err != nil {
			return err
		}
		var t *tap.Tap
		if err := errors.Join(n.Do(func() (err error) { t, err = tap.Open(link); return err }), n.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		title := name + " " + link
		if name == "pod" {
			title = "pod " + p.Short() + " " + link
		}
		c.taps, c.names = append(c.taps, t), append(c.names, title)
		c.at = append(c.at, pcapng.Interface{Name: title, Description: h.Name + ": " + link})
	}
	return nil
}

func (c *capturing) close() {
	for _, t := range c.taps {
		_ = t.Close()
	}
}

// settle is how long frames wait for earlier ones of other points.
const settle = 60 * time.Millisecond

// run captures until ctx ends or the size is reached, and returns how many frames were lost.
func (c *capturing) run(ctx context.Context, snap int) (lost int, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	ch := make(chan caught, 1024)
	var wg sync.WaitGroup
	for i, t := range c.taps {
		wg.Go(func() { pump(ctx, t, i, snap, ch) })
	}
	go func() { wg.Wait(); close(ch) }()
	tick := time.NewTicker(settle / 2)
	defer tick.Stop()
	var pending []caught
	for {
		select {
		case x, ok := <-ch:
			if !ok {
				_, err = c.emit(pending, time.Now().Add(time.Hour), err)
				for _, t := range c.taps {
					n, lerr := t.Lost()
					lost, err = lost+n, errors.Join(err, lerr)
				}
				return lost, err
			}
			pending = append(pending, x)
		case now := <-tick.C:
			pending, err = c.emit(pending, now.Add(-settle), err)
		}
		if err != nil || c.left <= 0 {
			end()
		}
	}
}

// pump brings a tap's frames until ctx ends and the tap is quiet.
func pump(ctx context.Context, t *tap.Tap, point, snap int, ch chan<- caught) {
	buf := make([]byte, snap)
	for {
		n, length, at, err := t.Read(buf)
		if err == nil {
			ch <- caught{point, length, at, slices.Clone(buf[:n])}
		}
		if ctx.Err() != nil || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// emit writes what was seen before a time, in order, and returns the rest.
func (c *capturing) emit(pending []caught, before time.Time, failed error) ([]caught, error) {
	if failed != nil {
		return nil, failed
	}
	slices.SortStableFunc(pending, func(a, b caught) int { return a.at.Compare(b.at) })
	for i, x := range pending {
		if x.at.After(before) {
			return pending[i:], nil
		}
		p, ok := frame.Parse(x.data)
		if !ok || !c.filter.Keep(p) || c.left <= 0 {
			continue
		}
		n, comment := c.join.Number(p), ""
		if n > 0 {
			comment = fmt.Sprintf("connection %d", n)
		}
		c.packets++
		c.left -= len(x.data)
		if c.file != nil {
			if err := c.file.Write(x.point, x.at, x.data, x.length, comment); err != nil {
				return nil, err
			}
		}
		if c.live != nil {
			if _, err := fmt.Fprintf(c.live, "%s %-22s #%-3d %s\n", x.at.Format("15:04:05.000000"), c.names[x.point], n, p); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}
