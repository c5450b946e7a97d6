// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/control"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// fakePortald answers GET /vips with text, as soon as it is not what the caller knows, until stopped. Without a text it hangs.
func fakePortald(t *testing.T, path string, text *atomic.Value) (stop func()) {
	t.Helper()
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /vips", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			now := text.Load().(string)
			state := fmt.Sprintf("%x", crc32.ChecksumIEEE([]byte(now)))
			if now != "" && r.URL.Query().Get("after") != state {
				_, _ = fmt.Fprintf(w, `{"state":%q,%s`, state, now[1:])
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	go func() { done <- control.Serve(ctx, l, mux) }()
	return func() { cancel(); <-done }
}

// TestAClientOnANodeThatAnnouncesThePortalNet: the route of its packet is looked up before portald's rules translate it.
func TestAClientOnANodeThatAnnouncesThePortalNet(t *testing.T) {
	l := newLab(t)
	startEmbedded(t, l.mls)
	socket := l.n1.dir + "/portald.sock"
	var text atomic.Value
	text.Store(`{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[]}`)
	defer fakePortald(t, socket, &text)()
	l.n1.sh(t, `nft add table x; nft add chain x o '{ type nat hook output priority -100; }'
		nft add rule x o ip daddr 10.100.87.105 tcp dport 80 dnat to 10.10.10.1:8080`)
	l.startNode(t, l.n1, "--announce-portal-net", "--portald-socket="+socket)
	within(t, promised, "announced", func() bool { return len(l.n1.status(t).Announced) == 2 })
	within(t, promised, "in the kernel", func() bool { return l.n1.has(t, "unreachable 10.10.10.0/24") })
	var server net.Listener
	nstest.Do(t, l.n1.Handle, func() (err error) { server, err = net.Listen("tcp", "10.10.10.1:8080"); return err })
	defer server.Close()
	dial := func() (err error) {
		nstest.Do(t, l.n1.Handle, func() error {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", "10.100.87.105:80", promised); err == nil {
				_ = c.Close()
			}
			return nil
		})
		return err
	}
	if err := dial(); err != nil {
		t.Errorf("the node cuts itself off: %v", err)
	}
	if err := run([]string{"drain", "--for=0s", "--socket=" + l.n1.dir + "/routed.sock"}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Errorf("drained: %v", err)
	}
}

func TestServiceAddresses(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/birdc"); err != nil {
		t.Fatal("bird is not installed: test/need.sh test")
	}
	l := newLab(t)
	startBird(t, l.mls)
	socket := l.n1.dir + "/portald.sock"
	var text atomic.Value
	text.Store(`{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[{"vip":"203.0.113.7","ready":0}]}`)
	l.n1.routed(t, "--peer=10.20.30.1", "--pod-subnet=10.10.10.0/24", "--announce-portal-net", "--announce-vips", "--portald-socket="+socket)
	within(t, promised, "the pod subnet", func() bool { return l.mls.has(t, "10.10.10.0/24") })
	within(t, promised, "without portald nothing else", func() bool {
		return !l.mls.has(t, "10.100.0.0/16")
	})
	stop := fakePortald(t, socket, &text)
	within(t, promised, "the portal net, but no address without endpoint", func() bool {
		return l.mls.has(t, "10.100.0.0/16 via 10.20.30.62") && !l.mls.has(t, "203.0.113.7")
	})
	for _, ready := range []bool{true, false, true} { // far sooner than portald used to be asked
		text.Store(fmt.Sprintf(`{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[{"vip":"203.0.113.7","ready":%d}]}`, map[bool]int{true: 1}[ready]))
		within(t, askPortald/2, fmt.Sprintf("the address, ready: %v", ready), func() bool { return l.mls.has(t, "203.0.113.7 via 10.20.30.62") == ready })
	}

	drained := make(chan error, 1)
	go func() {
		var out bytes.Buffer
		drained <- run([]string{"drain", "--for=1s", "--socket=" + l.n1.dir + "/routed.sock"}, &out, &out)
	}()
	within(t, time.Second, "GRACEFUL_SHUTDOWN", func() bool {
		out := nstest.Run(t, l.mls.Handle, "/usr/sbin/birdc", "-s", l.mls.dir+"/bird.ctl", "show", "route", "all", "10.100.0.0/16")
		return strings.Contains(out, "(65535,0)")
	})
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, "withdrawn, the pods stay", func() bool {
		return !l.mls.has(t, "10.100.0.0/16") && !l.mls.has(t, "203.0.113.7") && l.mls.has(t, "10.10.10.0/24")
	})
	var out bytes.Buffer
	if err := run([]string{"undrain", "--socket=" + l.n1.dir + "/routed.sock"}, &out, &out); err != nil || out.String() != "undrained\n" {
		t.Fatal(out.String(), err)
	}
	within(t, time.Second, "back", func() bool { return l.mls.has(t, "10.100.0.0/16", "203.0.113.7") })

	stop()
	stopped := time.Now()
	within(t, 2*portaldGrace, "withdrawn when portald is gone for good", func() bool { return !l.mls.has(t, "10.100.0.0/16") })
	if took := time.Since(stopped); took < portaldGrace-askPortald {
		t.Errorf("withdrawn after %s: a restart of portald would shake the fabric", took)
	}
	if held := l.n1.status(t).Held; len(held) != 2 || held[0].Lacks != "portald does not answer" {
		t.Errorf("held %v", held)
	}
}

// TestAPortaldThatHangs accepts connections, as a process does that is stopped or starves, and answers none.
func TestAPortaldThatHangs(t *testing.T) {
	l := newLab(t)
	startBird(t, l.mls)
	socket := l.n1.dir + "/portald.sock"
	const answer = `{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[]}`
	var text atomic.Value
	text.Store(answer)
	defer fakePortald(t, socket, &text)()
	l.startNode(t, l.n1, "--announce-portal-net", "--portald-socket="+socket)
	has := func() bool { return l.mls.has(t, "10.100.0.0/16") }
	within(t, promised, "the portal net", has)
	changes := start(t, l.mls.Handle, nil, "ip", "-4", "monitor", "route")
	for quiet := time.Now(); time.Since(quiet) < portaldNews+portaldFirst; time.Sleep(100 * time.Millisecond) { // no news for long
	}
	if out := changes.output(); out != "" {
		t.Errorf("without news the announcement moves:\n%s", out)
	}
	text.Store("")
	within(t, portaldNews+askPortald+2*portaldFirst, "withdrawn", func() bool { return !has() })
	text.Store(answer)
	within(t, promised+portaldFirst, "back", has)
}

// TestBothDaemonsRestart ends routed and portald at once: peers keep the service addresses for as long as portald may take.
func TestBothDaemonsRestart(t *testing.T) {
	l := newLab(t)
	startBird(t, l.mls)
	socket := l.n1.dir + "/portald.sock"
	var text atomic.Value
	text.Store(`{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[{"vip":"203.0.113.7","ready":2}]}`)
	stop := fakePortald(t, socket, &text)
	begin := func() {
		l.startNode(t, l.n1, "--announce-portal-net", "--announce-vips", "--portald-socket="+socket)
		within(t, 15*time.Second, "session", func() bool {
			st := l.n1.status(t)
			return len(st.Sessions) == 1 && st.Sessions[0].Synced
		})
	}
	has := func() bool { return l.mls.has(t, "10.100.0.0/16", "203.0.113.7") }
	begin()
	within(t, promised, "service addresses", has)

	changes := start(t, l.mls.Handle, nil, "ip", "-4", "monitor", "route")
	stop()
	l.n1.signal(t, syscall.SIGUSR2)
	begin()
	stop = fakePortald(t, socket, &text)
	within(t, promised, "service addresses", func() bool { return has() && len(l.n1.status(t).Announced) == 3 })
	if out := changes.output(); strings.Contains(out, "Deleted") {
		t.Errorf("the restart of both shakes the fabric:\n%s", out)
	}

	stop()
	l.n1.signal(t, syscall.SIGUSR2)
	begin()
	within(t, 2*portaldGrace, "withdrawn when portald stays away", func() bool { return !has() })
}

// TestPrimaryAndBackup: a gateway that prepends its ASN serves the portal net only when no other does, and its pods as ever.
func TestPrimaryAndBackup(t *testing.T) {
	for _, r := range []struct {
		name  string
		start func(*testing.T, *host)
	}{
		{"embedded", func(t *testing.T, mls *host) {
			mls.routed(t, "--listen-range=10.20.30.0/24", "--asn=64512", "--accept=10.10.0.0/16", "--accept=10.100.0.0/16")
		}},
		{"bird", startBird},
		{"frr", func(t *testing.T, mls *host) { startFRR(t, mls, "") }},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			r.start(t, l.mls)
			var text atomic.Value
			text.Store(`{"synced":true,"portalNets":["10.100.0.0/16"],"vips":[]}`)
			for _, n := range []*host{l.n1, l.n2} {
				defer fakePortald(t, n.dir+"/portald.sock", &text)()
			}
			gateway := func(n *host, subnet, peer string) {
				conf := n.dir + "/routed.yaml"
				write(t, conf, "peers: ["+peer+"]\npodSubnets: ["+subnet+"]\nannouncePortalNet: true\nportaldSocket: "+n.dir+"/portald.sock\n")
				n.routed(t, "--conf="+conf)
			}
			gateway(l.n1, "10.10.10.0/24", "{name: 10.20.30.1}")
			gateway(l.n2, "10.10.20.0/24", "{name: 10.20.30.1, prepend: 2}")
			primary := func() bool { return l.mls.has(t, "10.100.0.0/16 via 10.20.30.62") }
			within(t, promised, "the primary", func() bool {
				st := l.n2.status(t)
				return primary() && l.mls.has(t, "10.10.20.0/24 via 10.20.30.63") && len(st.Sessions) == 1 && st.Sessions[0].Out == 2
			})
			if !primary() {
				t.Error("the backup takes traffic")
			}
			if err := run([]string{"drain", "--for=0s", "--socket=" + l.n1.dir + "/routed.sock"}, io.Discard, io.Discard); err != nil {
				t.Fatal(err)
			}
			within(t, promised, "the backup", func() bool { return l.mls.has(t, "10.100.0.0/16 via 10.20.30.63", "10.10.10.0/24 via 10.20.30.62") })
			if err := run([]string{"undrain", "--socket=" + l.n1.dir + "/routed.sock"}, io.Discard, io.Discard); err != nil {
				t.Fatal(err)
			}
			within(t, promised, "the primary again", primary)
		})
	}
}
