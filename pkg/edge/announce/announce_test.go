// SPDX-License-Identifier: Apache-2.0

package announce_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/announce"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestANeighbourTakesTheNewMAC(t *testing.T) {
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, "eth0", "10.0.0.2/24", b, "br0", "10.0.0.1/24")
	nstest.Sh(t, b, "ip addr add fd00::1/64 dev br0 nodad; ip link set br0 up")
	nstest.Sh(t, a, "ip link set eth0 address 02:00:00:00:00:02")
	for _, addr := range []string{"10.0.0.2", "fd00::2"} {
		nstest.Sh(t, b, "ip neigh replace "+addr+" lladdr 02:00:00:00:00:99 dev br0 nud stale")
		nstest.Do(t, a, func() error {
			i, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			return announce.Send(i.Index, [6]byte{2, 0, 0, 0, 0, 2}, netip.MustParseAddr(addr))
		})
		out := ""
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && !strings.Contains(out, "02:00:00:00:00:02"); {
			out = nstest.Run(t, b, "ip", "neigh", "show", addr)
		}
		if !strings.Contains(out, "02:00:00:00:00:02") {
			t.Errorf("%s: the neighbour still has %s", addr, out)
		}
	}
}
