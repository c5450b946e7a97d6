// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Packet is one line of tcpdump -nn -q: the two ends of a TCP or UDP packet.
type Packet struct {
	Src, Dst netip.AddrPort
	Line     string // as tcpdump wrote it
}

func (p Packet) String() string { return p.Src.String() + " > " + p.Dst.String() }

// Between reports whether the packet goes from a to b or back. Port 0 stands for any port.
func (p Packet) Between(a, b netip.AddrPort) bool {
	is := func(x, want netip.AddrPort) bool {
		return x.Addr() == want.Addr() && (want.Port() == 0 || x.Port() == want.Port())
	}
	return is(p.Src, a) && is(p.Dst, b) || is(p.Src, b) && is(p.Dst, a)
}

// Capture is a tcpdump that runs.
type Capture struct {
	Command string
	proc    *Process
	from    int // where its part of the log begins
}

// NewCapture starts tcpdump on an interface of the host and waits until it listens.
func (h *Host) NewCapture(iface, filter string) (*Capture, error) {
	c := &Capture{Command: "tcpdump -nn -q -i " + iface + " " + filter}
	// -Z root: an ordinary user's namespace has no user tcpdump to change to.
	proc, err := h.Start("tcpdump."+iface, "tcpdump", "-Z", "root", "-nn", "-q", "-l", "--immediate-mode", "-i", iface, filter)
	if err != nil {
		return nil, err
	}
	c.proc, c.from = proc, strings.LastIndex(proc.Log(), "listening on")+1
	return c, Eventually(5*time.Second, func() error {
		if _, err := proc.Running(); err != nil {
			return err
		}
		if strings.LastIndex(proc.Log(), "listening on")+1 <= c.from {
			return errors.New("tcpdump does not listen")
		}
		return nil
	})
}

var tcpdumpLine = regexp.MustCompile(`(?m)^.* IP (\d+\.\d+\.\d+\.\d+)\.(\d+) > (\d+\.\d+\.\d+\.\d+)\.(\d+): .*$`)

// Stop ends the capture and returns what passed.
func (c *Capture) Stop() ([]Packet, error) {
	if err := c.proc.Stop(); err != nil {
		return nil, err
	}
	return parseTcpdump(c.proc.Log()[c.from:])
}

func parseTcpdump(text string) ([]Packet, error) {
	var out []Packet
	for _, m := range tcpdumpLine.FindAllStringSubmatch(text, -1) {
		src, err1 := netip.ParseAddrPort(m[1] + ":" + m[2])
		dst, err2 := netip.ParseAddrPort(m[3] + ":" + m[4])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read %q: %w", m[0], err)
		}
		out = append(out, Packet{Src: src, Dst: dst, Line: m[0]})
	}
	return out, nil
}

// Flows counts connections: pairs of ends, whichever way the packets go.
func Flows(packets []Packet) int {
	seen := map[[2]string]bool{}
	for _, p := range packets {
		ends := [2]string{p.Src.String(), p.Dst.String()}
		slices.Sort(ends[:])
		seen[ends] = true
	}
	return len(seen)
}

// Answer is what a web server of the lab says about a request.
type Answer struct {
	Container, Pod, Node string
	Address, Client      netip.AddrPort // where the request arrived, and from whom
}

// Ask fetches the page at addr from here and reads it.
func (p *Place) Ask(addr string) (Answer, error) {
	text, err := p.Get(addr, "/")
	if err != nil {
		return Answer{}, err
	}
	return ParseAnswer(text)
}

// ParseAnswer reads the page of a web server of the lab.
func ParseAnswer(text string) (Answer, error) {
	var a Answer
	var err error
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "container":
			a.Container = value
		case "pod":
			a.Pod = value
		case "node":
			a.Node = value
		case "address":
			a.Address, err = netip.ParseAddrPort(value)
		case "client":
			a.Client, err = netip.ParseAddrPort(value)
		}
		if err != nil {
			return Answer{}, fmt.Errorf("read the answer %q: %w", text, err)
		}
	}
	if !a.Client.IsValid() {
		return Answer{}, fmt.Errorf("read the answer %q: it is not one of the lab's", text)
	}
	return a, nil
}
