// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// callFrom connects from one port and waits for an answer.
func (w *world) callFrom(h *netns.Handle, port int, to string) (answer string) {
	w.t.Helper()
	nstest.Do(w.t, h, func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Timeout: 10 * time.Second}
		c, err := d.Dial("tcp4", to)
		if err != nil {
			answer = err.Error()
			return nil
		}
		defer c.Close() //nolint:errcheck // a test client
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		answer = string(buf[:n])
		return err
	})
	return answer
}

// A client that asked before there was a portal has left a flow past it in the kernel, for two minutes. Who asks again from
// the same port must not meet it.
func TestConnectionsThatWentPastAPortal(t *testing.T) {
	w := newWorld(t)
	w.pod(w.other, "far", "10.10.20.4:8080")
	past := func(port string) {
		nstest.Sh(t, w.node, "conntrack -I -t 120 -p tcp --state SYN_SENT --orig-src 10.10.10.2 --orig-dst 10.100.87.105 --sport "+port+" --dport 80 "+
			"--reply-src 10.100.87.105 --reply-dst 10.10.10.2 --reply-port-src 80 --reply-port-dst "+port)
	}
	past("5000")
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p := w.start("--resync=0")
	p.synced("the portal", one)
	if got := w.callFrom(w.client, 5000, "10.100.87.105:80"); !strings.HasPrefix(got, "far saw 10.10.10.2") {
		t.Errorf("from before portald: %q", got)
	}
	if err := os.Remove(filepath.Join(w.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	p.synced("no portal", func(r portals.Report) bool { return len(r.Portals) == 0 })
	past("5001")
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p.synced("the portal", one)
	if got := w.callFrom(w.client, 5001, "10.100.87.105:80"); !strings.HasPrefix(got, "far saw 10.10.10.2") {
		t.Errorf("from before the service: %q", got)
	}
	p.stop()
}

// knock asks and goes away.
func knock(at netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // that is the point
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return nil
}

// TestFireNoPacketMeetsHalfAService: clients that have asked since before there was a portald, from few ports, are answered
// every time once the portal is there, while its endpoints change in every way, and so does all around them.
func TestFireNoPacketMeetsHalfAService(t *testing.T) {
	w := newWorld(t)
	nstest.Sh(t, w.node, "nft add table ip other; nft 'add chain ip other c { type nat hook postrouting priority 100; }'; nft add rule ip other c ct state new accept") // the kernel follows flows already
	nstest.Sh(t, w.client, "echo 40000 40999 > /proc/sys/net/ipv4/ip_local_port_range")
	nstest.Sh(t, w.other, "for i in 5 6 7 8; do ip addr add 10.10.20.$i/32 dev lo; done")
	w.pod(w.other, "far", "0.0.0.0:8080")
	w.pod(w.near, "near", "10.10.10.3:8080")
	at := netip.MustParseAddrPort(vip)
	for range 300 {
		nstest.Do(t, w.client, func() error { return knock(at) })
	}
	stop, callers := make(chan struct{}), sync.WaitGroup{}
	var since atomic.Int64 // when the portal was there
	var calls atomic.Int64
	for range 2 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				if err := w.client.Do(func() error { return visit(at) }); since.Load() != 0 && began.UnixNano() > since.Load() {
					if calls.Add(1); err != nil {
						t.Errorf("call %d, %s after the portal: %v", calls.Load(), time.Duration(began.UnixNano()-since.Load()), err)
						return
					}
				}
			}
		})
	}
	w.write("web.yaml", webfrontend("10.10.20.4"))
	p := w.start()
	p.synced("the portal", one)
	since.Store(time.Now().UnixNano())
	all := []string{"10.10.20.4", "10.10.20.5", "10.10.20.6", "10.10.20.7", "10.10.20.8", "10.10.10.3"}
	for i := range 300 {
		rand.Shuffle(len(all), func(a, b int) { all[a], all[b] = all[b], all[a] })
		text := webfrontend(all[:1+rand.IntN(len(all))]...)
		switch i % 4 {
		case 1:
			text = strings.Replace(text, "spec:\n", "spec:\n  sessionAffinity: ClientIP\n", 1)
		case 2:
			text = strings.Replace(text, "spec:\n", "spec:\n  externalIPs: [192.0.2.1]\n", 1)
		case 3:
			text = strings.Replace(text, "{port: 80, targetPort: 8080}", "{name: \"\", port: 80, targetPort: 8080}", 1)
		}
		w.write("web.yaml", text)
		if i%10 == 0 {
			w.write(fmt.Sprintf("other-%d.yaml", i/10), strings.NewReplacer("webfrontend", fmt.Sprint("web", i), "10.100.87.105", fmt.Sprint("10.100.88.", i%200)).Replace(text))
		}
		time.Sleep(10 * time.Millisecond) // some changes alone, some together
	}
	close(stop)
	callers.Wait()
	if calls.Load() < 500 {
		t.Errorf("%d calls prove little", calls.Load())
	}
	t.Logf("%d calls", calls.Load())
	p.stop()
}
