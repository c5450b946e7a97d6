// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
