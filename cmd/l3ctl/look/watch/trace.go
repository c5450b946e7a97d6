// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/cmd/l3ctl/look"
	"github.com/l3edge/l3edge/pkg/core/view"
	"github.com/l3edge/l3edge/pkg/core/walk"
	"github.com/l3edge/l3edge/pkg/lab"
)

// traced is a prediction and, with --probe, what was seen.
type traced struct {
	walk.Path
	Observed *observation `json:"observed,omitempty"`
}

func newTrace() *cobra.Command {
	probe := false
	cmd := &cobra.Command{
		Use: "trace FROM TO[:PORT]", Short: "Predict which way a connection takes, step by step, and with --probe make one and compare", Args: cobra.ExactArgs(2),
		Long: `Predict which way a TCP connection takes, step by step, with the reason for each change of an address. FROM and TO are pods (NAME or
HOST/NAME), hosts, services or addresses; FROM "here" is this host. The prediction is made of the tables that program the kernel
(portald's portals, the routes). --probe makes one real connection, watches every interface that it can reach, and shows
where what it saw parts from the prediction; status 2 if it does.`,
		Example: "  l3ctl trace web8080-1 webfrontend\n  l3ctl trace --lab kubminion1/web8080-1 10.100.87.105:80 --probe",
	}
	cmd.Flags().BoolVar(&probe, "probe", false, "make one connection and watch it (as root, on the host of FROM, or in a lab)")
	cmd.ValidArgsFunction = look.Complete(2, look.Ends)
	format, where := look.Output(cmd), look.Hosts(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if probe && len(where.From) > 0 {
			return fmt.Errorf("--probe: makes a connection now, and --from looks at what was")
		}
		if probe && where.All {
			return fmt.Errorf("--probe: makes a connection on this host; with --all there is only the prediction")
		}
		if where.Lab != "" {
			if _, err := lab.ReadState(""); err != nil {
				return inside(where.Lab)
			}
		}
		hs, err := where.Look(cmd)
		if err != nil {
			return err
		}
		w := walk.World(hs)
		from, err := fromEnd(w, args[0])
		if err != nil {
			return err
		}
		to, err := toEnd(w, args[1])
		if err != nil {
			return err
		}
		t := traced{Path: walk.Trace(w, from, to, netip.AddrPort{})}
		if probe {
			if t, err = probed(w, where, from, to); err != nil {
				return err
			}
		}
		if err := format.Print(cmd, t, func(out io.Writer) { t.write(out) }); err != nil {
			return err
		}
		if t.Observed != nil && !t.Observed.Agrees || t.Observed == nil && (t.Verdict == walk.Refused || t.Verdict == walk.Dropped) {
			return look.Unhealthy
		}
		return nil
	}
	return cmd
}

// inside runs the same command inside the lab's nest, where its hosts' namespaces can be entered.
func inside(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{self, "lab", "exec", "--name=" + name, ".", "--", lab.Program("l3ctl")}, os.Args[1:]...)
	return unix.Exec(self, args, os.Environ())
}

// fromEnd finds the host, pod or address that FROM names.
func fromEnd(w walk.World, text string) (walk.End, error) {
	if text == "here" {
		return walk.End{Host: &w[0]}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		if h, p, ok := w.Pod(a); ok && p.Alive {
			return walk.End{Host: &h, Pod: &p, Addr: a}, nil
		}
		if h, ok := w.Owner(a); ok {
			return walk.End{Host: &h, Addr: a}, nil
		}
		return walk.End{Addr: a}, nil
	}
	if h, ok := w.At(text); ok {
		return walk.End{Host: &h}, nil
	}
	if h, p, ok := podNamed(w, text); ok {
		return walk.End{Host: &h, Pod: &p, Addr: p.Addrs[0]}, nil
	}
	return walk.End{}, fmt.Errorf("FROM: %q is no pod, host or address that was seen", text)
}

// podNamed finds NAME or HOST/NAME; a name may itself be namespace/name.
func podNamed(w walk.World, text string) (view.Host, view.Pod, bool) {
	for _, h := range w {
		name := text
		if rest, ok := strings.CutPrefix(text, h.Name+"/"); ok {
			name = rest
		}
		if p, ok := h.PodNamed(name); ok && len(p.Addrs) > 0 {
			return h, p, true
		}
	}
	return view.Host{}, view.Pod{}, false
}

// toEnd finds the address and port that TO names.
func toEnd(w walk.World, text string) (netip.AddrPort, error) {
	name, portText, _ := strings.Cut(text, ":")
	var port uint16
	a, err := netip.ParseAddr(text)
	if err != nil {
		if portText != "" {
			n, err := strconv.ParseUint(portText, 10, 16)
			if err != nil || n == 0 {
				return netip.AddrPort{}, fmt.Errorf("TO: %q is not a port", portText)
			}
			port = uint16(n)
		}
		a, err = netip.ParseAddr(name)
	}
	if err != nil {
		if _, p, ok := podNamed(w, name); ok {
			a, err = p.Addrs[0], nil
		} else if h, ok := w.At(name); ok {
			a, err = h.Primary(), nil
		}
	}
	var services []view.Portal
	if err != nil {
		services = w.Service(name)
	} else {
		_, services = w.Portal(a, port)
	}
	if len(services) > 0 {
		i := max(0, slices.IndexFunc(services, func(p view.Portal) bool { return p.Port == port }))
		if port == 0 {
			port = services[i].Port
		}
		return netip.AddrPortFrom(services[i].VIP, port), nil
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("TO: %q is no service, pod, host or address that was seen", name)
	}
	if port == 0 {
		return netip.AddrPort{}, fmt.Errorf("TO: %q needs a port: %s:PORT", text, text)
	}
	return netip.AddrPortFrom(a, port), nil
}

// write is the path for a person, a line a step, with what was seen beside it.
func (t traced) write(w io.Writer) {
	look.Say(w, "from %s to %s", t.From, t.To)
	if len(t.Backends) > 1 {
		look.Say(w, "any of %d endpoints may be chosen; this is the way to %s", len(t.Backends), t.Backend)
	}
	seen := ""
	if t.Observed != nil {
		seen = "SEEN\t"
	}
	look.Say(w, "\nHOST\tWHERE\tFROM > TO\t%sWHAT", seen)
	at := 0
	for _, s := range t.Steps {
		flow, mark := fmt.Sprintf("%s > %s", s.Src, s.Dst), ""
		if t.Observed != nil {
			mark = "\t"
			if s.Point != nil {
				mark = t.Observed.Points[at].String() + "\t"
				at++
			}
		}
		look.Say(w, "%s\t%s\t%s\t%s%s", s.Host, s.Where, flow, mark, s.What)
	}
	look.Say(w, "")
	for _, s := range t.Steps {
		if s.Why != "" {
			look.Say(w, "why: %s", s.Why)
		}
	}
	if t.Back != "" {
		look.Say(w, "back: %s", t.Back)
	}
	look.Say(w, "predicted: it %s", cmp.Or(map[walk.Verdict]string{walk.Refused: "is refused", walk.Dropped: "is dropped"}[t.Verdict], string(t.Verdict)))
	if t.Observed != nil {
		look.Say(w, "observed:  %s", t.Observed.Words)
	}
}

// String is when the packet was seen there.
func (p pointSeen) String() string {
	switch {
	case !p.Watched:
		return "(not watched)"
	case !p.Seen:
		return "NOT SEEN"
	}
	return fmt.Sprintf("+%.3f ms", float64(p.After)/float64(time.Millisecond))
}
