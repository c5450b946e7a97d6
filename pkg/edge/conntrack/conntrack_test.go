// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// socket is what the caller of Forget has open.
func socket(t *testing.T, ns *netns.Handle) (fd int) {
	t.Helper()
	nstest.Do(t, ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// flow of a table is "PROTOCOL NODE-ADDRESS PORT POD", the pod "-" where nobody leads it elsewhere.
func insert(t *testing.T, ns *netns.Handle, client string, flows ...string) {
	t.Helper()
	for i, f := range flows {
		w := strings.Fields(f)
		by, from := w[3], "53"
		if by == "-" {
			by, from = w[1], w[2]
		}
		port := strconv.Itoa(1000 + i) // no two flows may have the same way back
		nstest.Sh(t, ns, "conntrack -I -p "+w[0]+" -t 60 --orig-src "+client+" --orig-dst "+w[1]+" --sport "+port+" --dport "+w[2]+
			" --reply-src "+by+" --reply-dst "+client+" --reply-port-src "+from+" --reply-port-dst "+port+
			map[string]string{"tcp": " --state ESTABLISHED", "sctp": " --state ESTABLISHED --orig-vtag 1 --reply-vtag 2"}[w[0]])
	}
}

// left are the flows that insert could have made, sorted.
func left(t *testing.T, ns *netns.Handle) (out []string) {
	t.Helper()
	for _, f := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(nstest.Sh(t, ns, "conntrack -L -f "+f+" 2>/dev/null")) {
			w := strings.Fields(line)
			field := func(name string, nth int) string {
				for _, s := range w {
					if v, ok := strings.CutPrefix(s, name+"="); ok {
						if nth--; nth < 0 {
							return v
						}
					}
				}
				return "?"
			}
			by := field("src", 1)
			if by == field("dst", 0) {
				by = "-"
			}
			out = append(out, w[0]+" "+field("dst", 0)+" "+field("dport", 0)+" "+by)
		}
	}
	slices.Sort(out)
	return out
}

// TestForget asks each kernel's way: told once what to delete, and by reading the table as with an old one.
func TestForget(t *testing.T) {
	for _, fam := range []struct {
		name, client, node, other, pod, pod2 string
		v4                                   bool
	}{
		{"IPv4", "10.20.30.1", "10.20.30.62", "10.20.30.63", "10.10.10.2", "10.10.10.3", true},
		{"IPv6", "fd00:20::1", "fd00:20::62", "fd00:20::63", "fd00:10::2", "fd00:10::3", false},
	} {
		at := func(addr string, port uint16) netip.AddrPort {
			a, _ := netip.ParseAddr(addr) // none: the zero address
			return netip.AddrPortFrom(a, port)
		}
		all := []string{
			"udp NODE 5353 POD", "udp NODE 5353 OTHERPOD", "udp NODE 5353 -", "udp OTHER 5353 POD", "udp OTHER 5353 -", "udp NODE 5354 POD",
			"tcp NODE 5353 POD", "sctp NODE 5353 POD",
		}
		for _, tt := range []struct {
			name string
			m    Match
			gone []string
		}{
			{"what went to an address", Match{Protocol: service.UDP, To: at(fam.node, 5353)}, []string{"udp NODE 5353 POD", "udp NODE 5353 OTHERPOD", "udp NODE 5353 -"}},
			{"what went to an address and nobody has led elsewhere", Match{Protocol: service.UDP, To: at(fam.node, 5353), By: at(fam.node, 5353)}, []string{"udp NODE 5353 -"}},
			{"what a port of any address led to a pod", Match{Protocol: service.UDP, To: at("", 5353), By: at(fam.pod, 53)}, []string{"udp NODE 5353 POD", "udp OTHER 5353 POD"}},
			{"what a port of one address led to a pod", Match{Protocol: service.UDP, To: at(fam.other, 5353), By: at(fam.pod, 53)}, []string{"udp OTHER 5353 POD"}},
			{"nothing to another port of the pod", Match{Protocol: service.UDP, To: at("", 5353), By: at(fam.pod, 54)}, nil},
			{"of SCTP", Match{Protocol: service.SCTP, To: at("", 5353), By: at(fam.pod, 53)}, []string{"sctp NODE 5353 POD"}},
		} {
			for how, forget := range map[string]func(fd int) error{
				"told":    func(fd int) error { return Forget(fd, fam.v4, tt.m) },
				"reading": func(fd int) error { return ForgetIf(fd, fam.v4, tt.m.Protocol, tt.m.To.Port(), tt.m.fits) },
				"listing": func(fd int) error {
					f := family(fam.v4)
					return forget(fd, f, list(f, tt.m.Protocol, tt.m.To.Port()), tt.m.fits)
				},
			} {
				t.Run(fam.name+" "+tt.name+", "+how, func(t *testing.T) {
					ns := nstest.New(t)
					fd := socket(t, ns)
					name := strings.NewReplacer("NODE", fam.node, "OTHERPOD", fam.pod2, "OTHER", fam.other, "POD", fam.pod)
					var flows, want []string
					for _, f := range all {
						flows = append(flows, name.Replace(f))
						if !slices.Contains(tt.gone, f) {
							want = append(want, name.Replace(f))
						}
					}
					insert(t, ns, fam.client, flows...)
					slices.Sort(want)
					for range 2 { // the second time there is nothing to forget
						nstest.Do(t, ns, func() error { return forget(fd) })
					}
					nstest.Do(t, ns, func() error { return Forget(fd, !fam.v4, Match{Protocol: tt.m.Protocol, To: at("", 5353)}) })
					if d := cmp.Diff(want, left(t, ns)); d != "" {
						t.Errorf("flows that are left (-want +got):\n%s", d)
					}
				})
			}
		}
	}
}

// TestFewFlowsAreReadTheShortWay: nobody waits for the empty places of the kernel's table.
func TestFewFlowsAreReadTheShortWay(t *testing.T) {
	ns := nstest.New(t)
	insert(t, ns, "fd00:20::1", "udp fd00:20::62 5353 fd00:10::2", "sctp fd00:20::62 5353 -", "tcp fd00:20::62 80 -")
	nstest.Sh(t, ns, `conntrack -I -p icmpv6 -t 60 -s fd00:20::1 -d fd00:20::62 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7
		conntrack -I -p udp -t 60 -s fd00:20::1 -d fd00:20::62 --sport 9 --dport 53 --zone 5
		conntrack -I -p udp -t 60 -s 10.20.30.1 -d 10.20.30.62 --sport 9 --dport 53`)
	var got []Flow
	nstest.Do(t, ns, func() error {
		_, known := pickFew(unix.AF_INET6, func(f Flow) bool { got = append(got, f); return true })
		if !known {
			t.Error("six flows are not known")
		}
		return ForgetIf(socket(t, ns), false, service.UDP, 53, func(Flow) bool { return true })
	})
	if len(got) != 4 {
		t.Errorf("got %v, want the four that have ports", got)
	}
	if out := nstest.Sh(t, ns, "conntrack -L -f ipv6 2>/dev/null"); strings.Contains(out, "zone=5") || strings.Count(out, "\n") != 4 {
		t.Errorf("left:\n%s", out)
	}
	for _, line := range []string{
		"", "ipv6 10 udp x 5 src=::1",
		"ipv6 10 udp 17 5 src=::1 dst=::2 sport=1 dport=2 src=::2 dst=::1 sport=2 dport=1 mark=0 zone-orig=1 use=1",
		"ipv6 10 udp 17 5 src=::1 dst=::2 sport=1 dport=2 src=::2 sport=2 dport=1 use=1",
	} {
		if l, ok := parseLine(line); ok {
			t.Errorf("%q: %+v", line, l)
		}
	}
}

// TestTheKernelIsToldOnce: this kernel is new enough, or the walk is what every hostPort of UDP pays for.
func TestTheKernelIsToldOnce(t *testing.T) {
	fd := socket(t, nstest.New(t))
	m := Match{Protocol: service.UDP, To: netip.MustParseAddrPort("10.20.30.62:5353"), By: netip.MustParseAddrPort("10.10.10.2:53")}
	if err := exchange(fd, flush(unix.AF_INET, m), func([]byte) {}); err != nil {
		t.Errorf("the kernel refuses to delete by filter: %v", err)
	}
}
