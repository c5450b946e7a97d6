// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/core/portal"
	"github.com/l3edge/l3edge/pkg/core/service"
	"github.com/l3edge/l3edge/pkg/core/tuning"
)

// TestChurn creates and deletes portals and endpoints in random order under connections. Every portal that has endpoints
// answers, the others refuse, and at the end nothing is left: no port, no goroutine, no file descriptor.
func TestChurn(t *testing.T) {
	ends := []netip.AddrPort{says(t, "a"), says(t, "b"), backendUDP(t, "c")}
	p, stop := start(t, Options{})
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	checked := tuning.Default()
	checked.Check, checked.CheckEvery = tuning.TCPCheck, 100*time.Millisecond
	tab := portal.Table{Portals: map[portal.Key]portal.Portal{}}
	for range 300 {
		for range 1 + rnd.IntN(20) {
			key := portal.Key{Addr: netip.AddrFrom4([4]byte{10, 100, 0, byte(rnd.IntN(100))}), Port: 80, Protocol: service.TCP}
			if rnd.IntN(4) == 0 {
				key.Protocol = service.UDP
			}
			if rnd.IntN(3) == 0 {
				delete(tab.Portals, key)
				continue
			}
			name := service.PortName{Name: service.Name{Namespace: "default", Name: fmt.Sprint("s", rnd.IntN(5))}}
			some := ends[:2]
			if key.Protocol == service.UDP {
				some = ends[2:]
			}
			tab.Portals[key] = portal.Portal{Service: name, Endpoints: some[:rnd.IntN(len(some)+1)]}
		}
		ports, err := p.Apply(tab, map[service.Name]tuning.Settings{{Namespace: "default", Name: "s1"}: checked})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for key, port := range ports {
			if at := fmt.Sprint(key.Protocol, port); seen[at] {
				t.Fatalf("two portals have port %s", at)
			} else {
				seen[at] = true
			}
		}
		for key, want := range tab.Portals { // one of them, at random
			tryPortal(t, key, ports[key], len(want.Endpoints) > 0)
			break
		}
	}
	if _, err := p.Apply(portal.Table{}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "sockets and goroutines to end", func() bool {
		return openFiles(t) <= files && runtime.NumGoroutine() <= goroutines
	})
	stop()
}

func tryPortal(t *testing.T, key portal.Key, port uint16, alive bool) {
	t.Helper()
	if key.Protocol == service.UDP {
		if alive {
			c := dialUDP(t, fmt.Sprint("127.0.0.1:", port))
			query(t, c, []byte("?"))
			_ = c.Close()
		}
		return
	}
	c, err := net.Dial("tcp4", fmt.Sprint("127.0.0.2:", port))
	if (err == nil) != alive {
		t.Fatalf("%s with endpoints %v: %v", key, alive, err)
	}
	if err == nil {
		if b, err := io.ReadAll(c); err != nil || len(b) != 1 {
			t.Fatalf("%s answered %q %v", key, b, err)
		}
		_ = c.Close()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
