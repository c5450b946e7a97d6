// SPDX-License-Identifier: Apache-2.0

package walk

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/view"
)

// Verdict is how a path ends.
type Verdict string

// The ends of paths. Beyond: it leaves the hosts that were seen.
const (
	Arrives Verdict = "arrives"
	Refused Verdict = "refused"
	Dropped Verdict = "dropped"
	Beyond  Verdict = "goes on beyond the hosts that were seen"
)

// Point is an interface where the packet can be seen.
type Point struct {
	Host  string `json:"host"`
	Netns string `json:"netns,omitempty"` // of a pod; empty: the host's
	Link  string `json:"link"`
}

// Step is one step of a path, with the addresses that the packet has from there on.
type Step struct {
	Host  string         `json:"host"`
	Where string         `json:"where"` // "eth0 of pod web", "docker0", "rule", "route", "portald"
	What  string         `json:"what"`
	Why   string         `json:"why,omitempty"` // of a change of an address, or of an end
	Src   netip.Addr     `json:"src"`
	Dst   netip.AddrPort `json:"dst"`
	Point *Point         `json:"point,omitempty"` // of steps that can be seen
}

// Path is the way of a connection's first packet, and of what a proxy sends in its place.
type Path struct {
	From     string           `json:"from"`
	To       string           `json:"to"`
	Steps    []Step           `json:"steps"`
	Verdict  Verdict          `json:"verdict"`
	Backends []netip.AddrPort `json:"backends,omitempty"` // any of them may be chosen; the path is that of Backend
	Backend  netip.AddrPort   `json:"backend,omitzero"`
	Back     string           `json:"back,omitempty"` // how the answer finds its way
}

// End is one end of a connection: a pod of a host, a host, or an address that is neither.
type End struct {
	Host *view.Host
	Pod  *view.Pod
	Addr netip.Addr
}

// Trace predicts the way from one end to an address and port over TCP. Of several backends it follows the one given, or
// the first. It decides as the kernel was told to: by portal.Trace and by longest prefix.
func Trace(w World, from End, to netip.AddrPort, backend netip.AddrPort) Path {
	t := &tracer{w: w, p: Path{To: to.String(), Backend: backend}, dst: to, want: backend, hops: 16}
	switch {
	case from.Pod != nil:
		t.p.From, t.src = "pod "+from.Pod.Short()+" on "+from.Host.Name, from.Addr
		t.leavePod(*from.Host, *from.Pod)
	case from.Host != nil:
		t.p.From = from.Host.Name
		t.src = t.sourceOn(*from.Host, to.Addr())
		t.step(*from.Host, "process", "a process connects", "", nil)
		t.leaveHost(*from.Host, true)
	default:
		t.p.From, t.p.Verdict = from.Addr.String(), Beyond
		t.p.Steps = append(t.p.Steps, Step{Where: "?", What: "nobody who was seen has this address", Src: from.Addr, Dst: to})
	}
	return t.p
}

type tracer struct {
	w     World
	p     Path
	src   netip.Addr
	dst   netip.AddrPort
	want  netip.AddrPort // the backend to follow
	first netip.AddrPort // what the client dialled where a rule has changed it
	hops  int

	proxied bool // the packet is one of portald's own
}

func (t *tracer) step(h view.Host, where, what, why string, at *Point) {
	t.p.Steps = append(t.p.Steps, Step{Host: h.Name, Where: where, What: what, Why: why, Src: t.src, Dst: t.dst, Point: at})
}

// see is a step at an interface.
func (t *tracer) see(h view.Host, link, what string) {
	t.step(h, link, what, "", &Point{Host: h.Name, Link: link})
}

func (t *tracer) end(h view.Host, v Verdict, what, why string) {
	t.step(h, string(v), what, why, nil)
	t.p.Verdict = v
}

// seePod is a step at the pod's own interface.
func (t *tracer) seePod(h view.Host, p view.Pod, what string) {
	t.step(h, p.IfName+" of pod "+p.Short(), what, "", &Point{Host: h.Name, Netns: p.Netns, Link: p.IfName})
}

func (t *tracer) leavePod(h view.Host, p view.Pod) {
	if slices.Contains(p.Addrs, t.dst.Addr()) {
		t.step(h, "lo of pod "+p.Short(), "stays in the pod: containers of a pod share its addresses", "", &Point{Host: h.Name, Netns: p.Netns, Link: "lo"})
		t.p.Verdict = Arrives
		return
	}
	t.seePod(h, p, "leaves the pod by its default route, the bridge "+p.Bridge)
	t.see(h, p.Veth, "comes out of the other end of the pod's cable")
	if other, ok := h.PodAt(t.dst.Addr()); ok && other.Alive && covers(p, t.dst.Addr()) {
		t.bridged(h, p, other)
		return
	}
	out := portal.Trace(Table(h), t.packet())
	_, _, published := h.Published(t.dst)
	early := h.Settings["net/bridge/bridge-nf-call-iptables"] == "1" && (out.Verdict == portal.Forward || published)
	if !early {
		t.see(h, p.Bridge, "reaches the node, which is the pod's gateway")
	}
	if !t.answer(h, p.Bridge, out) {
		return
	}
	if early && !t.proxied { // the rule is met at the bridge's port already
		if other, ok := h.PodAt(t.dst.Addr()); ok && other.Alive && covers(p, t.dst.Addr()) {
			what := "passes the frame on to the endpoint's port"
			if other.Container == p.Container {
				what = "passes the frame back through the port that it came from (hairpin)"
			}
			t.step(h, "bridge "+p.Bridge, what, "", nil)
			t.deliver(h, other)
			return
		}
		t.see(h, p.Bridge, "reaches the node, which is the pod's gateway")
	}
	t.leaveHost(h, false)
}

// covers reports that the pod takes the address for one of its own network, and asks for it by ARP.
func covers(p view.Pod, a netip.Addr) bool {
	return slices.ContainsFunc(p.Want.Addrs, func(x netip.Prefix) bool { return x.Contains(a) })
}

// bridged is a frame from one port of the bridge to another.
func (t *tracer) bridged(h view.Host, from, to view.Pod) {
	a, _ := h.Link(from.Veth)
	b, _ := h.Link(to.Veth)
	if a.Port.Isolated && b.Port.Isolated {
		t.end(h, Dropped, "the bridge passes no frame between isolated ports", "the network says portIsolation")
		return
	}
	t.step(h, "bridge "+from.Bridge, "passes the frame from port to port: both pods are on one network", "", nil)
	t.deliver(h, to)
}

// deliver is the end of a path to a pod.
func (t *tracer) deliver(h view.Host, p view.Pod) {
	t.see(h, p.Veth, "goes into the pod's cable")
	t.seePod(h, p, "arrives")
	t.p.Verdict = Arrives
	t.back(h)
}

func (t *tracer) packet() portal.Packet {
	return portal.Packet{From: t.src, To: t.dst.Addr(), Protocol: service.TCP, Port: t.dst.Port()}
}

// answer carries out what the host's portals say; false: the path has ended.
func (t *tracer) answer(h view.Host, in string, out portal.Outcome) bool {
	switch out.Verdict {
	case portal.Pass, portal.Answer:
		t.published(h)
		return true
	case portal.Refuse:
		t.end(h, Refused, "the node refuses it", out.Why)
		return false
	case portal.Silence:
		t.end(h, Dropped, "the node drops it", out.Why)
		return false
	case portal.Forward:
	}
	_, ps := World{h}.Portal(t.dst.Addr(), t.dst.Port())
	t.p.Backends, t.first = out.Endpoints, t.dst
	t.p.Backend = out.Endpoints[0]
	if slices.Contains(out.Endpoints, t.want) {
		t.p.Backend = t.want
	}
	if ps[0].Mode == "userspace" {
		t.proxy(h, in, ps[0])
		return true
	}
	client := t.src
	t.dst = t.p.Backend
	t.step(h, "rule", fmt.Sprintf("nftables: %s is one of %d endpoints", t.first, len(out.Endpoints)),
		fmt.Sprintf("the destination becomes %s: %s is on no interface anywhere, it only stands for the service %s", t.dst, t.first.Addr(), ps[0].Name()), nil)
	if why := Table(h).Source(client, portal.Key{Addr: t.first.Addr(), Protocol: service.TCP, Port: t.first.Port()}, t.dst.Addr()); why != portal.Keep {
		t.src = t.sourceOn(h, t.dst.Addr())
		t.step(h, "rule", "nftables: masquerade", fmt.Sprintf("the source becomes %s: %s", t.src, why), nil)
	}
	return true
}

// published leads a packet to a port of the host on to the pod that has it.
func (t *tracer) published(h view.Host) {
	p, m, ok := h.Published(t.dst)
	if !ok {
		return
	}
	t.first, t.dst = t.dst, netip.AddrPortFrom(p.Addrs[0], m.To)
	t.step(h, "rule", fmt.Sprintf("nftables: port %d of the node is pod %s's", m.Port, p.Short()), fmt.Sprintf("the destination becomes %s: the pod publishes the port (hostPort)", t.dst), nil)
}

// proxy is portald in userspace mode: one connection ends, another begins.
func (t *tracer) proxy(h view.Host, in string, p view.Portal) {
	local := h.Primary()
	how := "DNAT to"
	if l, ok := h.Link(in); ok {
		how = "REDIRECT to"
		for _, a := range l.Addrs {
			if a.Addr().Is4() {
				local = a.Addr()
			}
		}
	}
	t.dst = netip.AddrPortFrom(local, p.ProxyPort)
	t.step(h, "rule", fmt.Sprintf("iptables: %s port %d, where portald listens for %s", how, p.ProxyPort, p.Name()),
		fmt.Sprintf("the destination becomes %s: %s is on no interface anywhere, it only stands for the service", t.dst, t.first.Addr()), nil)
	if in != "" && h.Settings["net/bridge/bridge-nf-call-iptables"] == "1" {
		if l, ok := h.Link(in); ok && l.Kind == "bridge" {
			t.see(h, in, "reaches the node, which is the pod's gateway")
		}
	}
	t.dst, t.proxied = t.p.Backend, true
	t.src = t.sourceOn(h, t.dst.Addr())
	t.step(h, "portald", fmt.Sprintf("accepts the connection, chooses one of %d endpoints, and opens a second connection", len(t.p.Backends)),
		fmt.Sprintf("the source becomes %s: portald itself connects, and the pod's connection ends here (nftables mode keeps the source)", t.src), nil)
}

// leaveHost routes the packet at h: one of its own, which meets the portals in OUTPUT, or one that it forwards.
func (t *tracer) leaveHost(h view.Host, own bool) {
	if t.hops--; t.hops < 0 {
		t.end(h, Dropped, "it goes round in a circle", "hosts route it to each other")
		return
	}
	if own && !t.answer(h, "", portal.Trace(Table(h), t.packet())) {
		return
	}
	if l, ok := h.Own(t.dst.Addr()); ok {
		t.step(h, l.Name, "is the host's own address", "", nil)
		t.p.Verdict = Arrives
		t.back(h)
		return
	}
	r, ok := h.Lookup(t.dst.Addr())
	switch {
	case !ok:
		t.end(h, Refused, "there is no route to it", "the kernel answers: network unreachable")
		return
	case r.Type != "":
		t.end(h, Refused, "route: "+r.String(), "routed keeps it so that nothing of its own prefixes goes back to the fabric: nobody has this address")
		return
	}
	t.step(h, "route", r.String(), "", nil)
	if l, _ := h.Link(r.Dev); l.Kind == "bridge" && !r.Via.IsValid() {
		if p, ok := h.PodAt(t.dst.Addr()); ok && p.Alive {
			t.see(h, r.Dev, "the node sends it on the pods' bridge")
			t.deliver(h, p)
			return
		}
	}
	t.see(h, r.Dev, "leaves "+h.Name)
	t.wire(h, r)
}

// wire brings the packet to the next host.
func (t *tracer) wire(h view.Host, r view.Route) {
	next := r.Via
	if !next.IsValid() {
		next = t.dst.Addr()
	}
	n, ok := t.w.Owner(next)
	if !ok {
		if _, own, _ := t.w.Home(t.dst.Addr()); !r.Via.IsValid() && own.IsValid() {
			t.end(h, Refused, "nobody answers: no pod has the address", "no answer to ARP; the kernel answers: host unreachable")
			return
		}
		t.jump(h, next)
		return
	}
	l, _ := n.Own(next)
	t.see(n, l.Name, "reaches "+n.Name)
	if t.answer(n, l.Name, portal.Trace(Table(n), t.packet())) {
		t.leaveHost(n, false)
	}
}

// jump goes on at the host that holds the destination, if that was seen, past routers that were not.
func (t *tracer) jump(h view.Host, router netip.Addr) {
	t.step(h, "router", fmt.Sprintf("%s, which was not seen from here, decides", router), "", nil)
	n, _, ok := t.w.Home(t.dst.Addr())
	if !ok {
		n, ok = t.w.Owner(t.dst.Addr())
	}
	if !ok || n.Name == h.Name {
		t.p.Verdict = Beyond
		return
	}
	if up := n.Uplink(); up != "" {
		t.see(n, up, "reaches "+n.Name)
	}
	t.leaveHost(n, false)
}

// sourceOn is the address that a process of h gets towards a.
func (t *tracer) sourceOn(h view.Host, a netip.Addr) netip.Addr {
	if _, own := h.Own(a); own {
		return a
	}
	r, _ := h.Lookup(a)
	l, ok := h.Link(r.Dev)
	next := r.Via
	if !next.IsValid() {
		next = a
	}
	first := h.Primary()
	for _, p := range l.Addrs {
		if ok && p.Contains(next) {
			return p.Addr()
		}
	}
	return first
}

// back says how the answer finds its way.
func (t *tracer) back(h view.Host) {
	switch {
	case !t.first.IsValid():
		t.p.Back = fmt.Sprintf("the answer goes to %s by the same rules; no address was changed", t.src)
	case t.proxied:
		t.p.Back = fmt.Sprintf("%s answers %s (portald), and portald answers the client as %s", h.Name, t.src, t.first)
	default:
		t.p.Back = fmt.Sprintf("the answer goes to %s; the host that changed the destination puts %s back as its source, so the client never sees the endpoint", t.src, t.first)
	}
}
