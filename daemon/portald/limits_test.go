// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
	"github.com/l3edge/l3edge/pkg/engine/portals"
)

// TestMoreConnectionsThanFiles: the process serves as many as it has file descriptors for, and says so; it does not choke,
// takes in changes meanwhile, and serves others when some have ended.
func TestMoreConnectionsThanFiles(t *testing.T) {
	w := newWorld(t)
	w.write("web.yaml", webfrontend("10.10.20.4"))
	var l net.Listener
	nstest.Do(t, w.other, func() (err error) { l, err = net.Listen("tcp4", "10.10.20.4:8080"); return err })
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &portald{w: w, log: new(lines)}
	nstest.Do(t, w.node, func() error {
		p.cmd = exec.Command("sh", append([]string{"-c", `ulimit -n 200; exec "$0" "$@"`, self}, w.args("--mode=userspace", "--drain=0s")...)...)
		p.cmd.Env = append(os.Environ(), "PORTALD_TEST_RUN=1", "XTABLES_LOCKFILE="+filepath.Join(w.run, "xtables.lock"))
		p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
		return p.cmd.Start()
	})
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("portald's log:\n%s", p.log)
		}
	})
	p.synced("the portal", func(r portals.Report) bool { return len(r.Portals) == 1 })
	var open []net.Conn
	const many = 80
	nstest.Do(t, w.client, func() error {
		for range many {
			c, err := new(net.Dialer).DialTCP(t.Context(), "tcp4", netip.AddrPort{}, netip.MustParseAddrPort(vip))
			if errors.Is(err, syscall.ECONNRESET) { // sent away so soon
				continue
			} else if err != nil {
				return err
			}
			open = append(open, c)
		}
		return nil
	})
	eventually(t, "portald to say so", func() bool { return strings.Contains(p.log.String(), "too many connections") })
	w.pod(w.near, "near", "10.10.10.3:8080")
	w.write("web.yaml", webfrontend("10.10.10.3"))
	p.synced("the new endpoint, and all connections to be served or sent away", func(r portals.Report) bool {
		s := r.Portals[0].Traffic
		return r.Portals[0].Endpoints[0].String() == "10.10.10.3:8080" && s.Active > 0 && s.Active+int64(s.Limited) == many //nolint:gosec // small
	})
	for _, c := range open {
		_ = c.Close()
	}
	eventually(t, "an answer afterwards", func() bool { return w.curl(w.client, vip) == "near saw 10.10.10.1" })
	if s := p.log.String(); strings.Count(s, "too many") > 2 {
		t.Errorf("more than a line each for connections and files:\n%s", s)
	}
}
