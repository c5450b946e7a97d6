// SPDX-License-Identifier: Apache-2.0

package place

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Packet is a TCP packet over IPv4 that was seen on an interface.
type Packet struct {
	Time     time.Time
	Src, Dst netip.AddrPort
	Length   int // of what it carries, bytes
}

// String is the line that tcpdump -nn -q writes.
func (p Packet) String() string {
	end := func(a netip.AddrPort) string { return fmt.Sprintf("%s.%d", a.Addr(), a.Port()) }
	return fmt.Sprintf("%s IP %s > %s: tcp %d", p.Time.Format("15:04:05.000000"), end(p.Src), end(p.Dst), p.Length)
}

// Between reports whether the packet goes from a to b or back. Port 0 stands for any port.
func (p Packet) Between(a, b netip.AddrPort) bool {
	is := func(x, want netip.AddrPort) bool {
		return x.Addr() == want.Addr() && (want.Port() == 0 || x.Port() == want.Port())
	}
	return is(p.Src, a) && is(p.Dst, b) || is(p.Src, b) && is(p.Dst, a)
}

// parsePacket reads an IPv4 header and the TCP header behind it; ok is false for everything else.
func parsePacket(b []byte) (p Packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != unix.IPPROTO_TCP {
		return Packet{}, false
	}
	ip, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if ip < 20 || total < ip+20 || len(b) < ip+20 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 { // a later fragment has no ports
		return Packet{}, false
	}
	tcp := b[ip:]
	p.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(tcp))
	p.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(tcp[2:]))
	p.Length = max(0, total-ip-int(tcp[12]>>4)*4)
	return p, true
}

// Capture records TCP packets on one interface. It is not tcpdump, because in an ordinary user's namespace that finds
// no user to drop its rights to.
type Capture struct {
	fd      int
	ports   []uint16
	stop    atomic.Bool
	done    chan struct{} // closed when reading has ended; then the rest may be read
	packets []Packet
	err     error
}

// NewCapture starts recording on an interface of the place: packets from or to any of the ports, or all where none is given.
func (p *Place) NewCapture(iface string, ports ...uint16) (*Capture, error) {
	c := &Capture{ports: ports, done: make(chan struct{})}
	if err := p.Net.Do(func() (err error) { c.fd, err = openTap(iface); return err }); err != nil {
		return nil, fmt.Errorf("%s: capture on %s: %w", p.Name, iface, err)
	}
	go c.read()
	return c, nil
}

// openTap opens a packet socket that sees what the interface of the current namespace sends and receives.
func openTap(iface string) (int, error) {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0) // sees nothing until it is bound
	if err != nil {
		return -1, err
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil { // the machine's root only
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) // as much as the machine allows: 500 packets
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // in network order: packet(7)
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}))
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// read records until a pause of 20 ms after Stop was called.
func (c *Capture) read() {
	defer close(c.done)
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) && c.stop.Load():
			return
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			c.err = fmt.Errorf("capture: %w", err)
			return
		}
		p, ok := parsePacket(buf[:n])
		if ok && (len(c.ports) == 0 || slices.Contains(c.ports, p.Src.Port()) || slices.Contains(c.ports, p.Dst.Port())) {
			p.Time = time.Now()
			c.packets = append(c.packets, p)
		}
	}
}

// Stop ends the capture once the interface has been quiet for a moment, and returns what passed.
func (c *Capture) Stop() ([]Packet, error) {
	c.stop.Store(true)
	<-c.done
	if stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("capture: %w", err))
	} else if stats.Drops > 0 {
		c.err = errors.Join(c.err, fmt.Errorf("capture: %d packets were lost", stats.Drops))
	}
	return c.packets, errors.Join(c.err, unix.Close(c.fd))
}

// AwaitQuiet waits until nothing passes the interface for a moment: the last packets of a connection come after the
// answer, and those of an earlier one shall not be taken for the next one's.
func (p *Place) AwaitQuiet(iface string, ports ...uint16) error {
	return Eventually(5*time.Second, func() error {
		c, err := p.NewCapture(iface, ports...)
		if err != nil {
			return err
		}
		packets, err := c.Stop()
		if err == nil && len(packets) > 0 {
			err = fmt.Errorf("%s of %s is never quiet: %s", iface, p.Name, packets[0])
		}
		return err
	})
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
