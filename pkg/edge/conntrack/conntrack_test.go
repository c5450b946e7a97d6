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

func TestForget(t *testing.T) {
	for _, tt := range []struct {
		name, client, node, other, pod string
		v4                             bool
	}{
		{"IPv4", "10.20.30.1", "10.20.30.62", "10.20.30.63", "10.10.10.2", true},
		{"IPv6", "fd00:20::1", "fd00:20::62", "fd00:20::63", "fd00:10::2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := nstest.New(t)
			fd := socket(t, ns)
			sport := 1000
			add := func(proto, to, port, by string) {
				sport++ // no two flows may have the same way back
				nstest.Sh(t, ns, "conntrack -I -p "+proto+" -t 60 --orig-src "+tt.client+" --orig-dst "+to+" --sport "+strconv.Itoa(sport)+" --dport "+port+
					" --reply-src "+by+" --reply-dst "+tt.client+" --reply-port-src 53 --reply-port-dst "+strconv.Itoa(sport)+map[string]string{"tcp": " --state ESTABLISHED"}[proto])
			}
			add("udp", tt.node, "5353", tt.pod)
			add("udp", tt.other, "5353", tt.pod)
			add("udp", tt.node, "5354", tt.pod)
			add("tcp", tt.node, "5353", tt.pod)
			left := func() (out []string) {
				for _, f := range []string{"ipv4", "ipv6"} {
					for line := range strings.Lines(nstest.Sh(t, ns, "conntrack -L -f "+f+" 2>/dev/null")) {
						w := strings.Fields(line)
						i, j := slices.IndexFunc(w, func(s string) bool { return strings.HasPrefix(s, "dst=") }), slices.IndexFunc(w, func(s string) bool { return strings.HasPrefix(s, "dport=") })
						out = append(out, w[0]+" "+w[i][4:]+" "+w[j][6:])
					}
				}
				slices.Sort(out)
				return out
			}
			var asked []Flow
			for range 2 { // the second time there is nothing to forget
				err := Forget(fd, tt.v4, 5353, func(f Flow) bool {
					asked = append(asked, f)
					return f.To.Addr() == netip.MustParseAddr(tt.node)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff([]string{"tcp " + tt.node + " 5353", "udp " + tt.node + " 5354", "udp " + tt.other + " 5353"}, left()); d != "" {
				t.Errorf("flows that are left (-want +got):\n%s", d)
			}
			pod := netip.AddrPortFrom(netip.MustParseAddr(tt.pod), 53)
			to := func(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 5353) }
			slices.SortFunc(asked, func(a, b Flow) int { return a.To.Compare(b.To) })
			want := []Flow{{to(tt.node), pod}, {to(tt.other), pod}, {to(tt.other), pod}}
			if d := cmp.Diff(want, asked, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Errorf("flows that it was asked of (-want +got):\n%s", d)
			}
			if err := Forget(fd, !tt.v4, 5353, func(f Flow) bool { t.Errorf("asked of %v, of the other family", f); return true }); err != nil {
				t.Error(err)
			}
		})
	}
}
