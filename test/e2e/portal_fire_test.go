// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/lab"
	"github.com/l3edge/l3edge/pkg/lab/labtest"
	"github.com/l3edge/l3edge/pkg/lab/place"
)

// visitors ask a portal from a pod at a steady rate, whatever becomes of those before.
type visitors struct {
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	took []visit
}

type visit struct {
	began time.Time
	err   error
}

const visitsPerSecond = 500

func startVisitors(t *testing.T, from *place.Place, addr string) *visitors {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	v := &visitors{stop: stop}
	v.done.Go(func() {
		tick := time.NewTicker(time.Second / visitsPerSecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			v.done.Go(func() {
				one := visit{began: time.Now()}
				one.err = askOnce(from, addr)
				v.mu.Lock()
				v.took = append(v.took, one)
				v.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() { stop(); v.done.Wait() })
	return v
}

// askOnce opens a connection, asks and wants the first bytes of an answer. It resets the connection, so that a node of
// the lab does not run out of ports.
func askOnce(from *place.Place, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it is reset
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.SetDeadline(time.Now().Add(4 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 12))
	return err
}

// failed stops the visitors and returns how many of those that began after since came to nothing, with one reason.
func (v *visitors) failed(since time.Time) (n, of int, why error) {
	v.stop()
	v.done.Wait()
	for _, one := range v.took {
		if one.began.Before(since) {
			continue
		}
		if of++; one.err != nil {
			n++
			why = one.err
		}
	}
	return n, of, why
}

// Fire 1: portald is killed and started again, over and over, under 500 connections a second: in the kernel none is lost.
func TestFire1PortaldKilled(t *testing.T) {
	l := routed(t, lab.Embedded)
	portal(t, l, "nftables")
	node, client := l.Hosts["kubminion1"], addPod(t, l, "kubminion1", "client")
	v := startVisitors(t, client.Place, vip)
	for range 4 {
		time.Sleep(250 * time.Millisecond)
		node.Portald.Kill()
		must(t, node.StartPortald("--mode=nftables"))
	}
	time.Sleep(500 * time.Millisecond)
	if n, of, why := v.failed(time.Time{}); n > 0 || of < visitsPerSecond/2 {
		t.Errorf("%d of %d connections failed (%v)", n, of, why)
	} else {
		t.Logf("%d connections over four kills", of)
	}
	if _, err := node.Portald.Running(); err != nil {
		t.Error(err)
	}
}

// Fire 2: a backend is deleted in the middle of traffic, and nobody tells portald: a second later no connection fails.
func TestFire2BackendGone(t *testing.T) {
	l := routed(t, lab.Embedded)
	pods := portal(t, l, "userspace")
	client := addPod(t, l, "kubminion1", "client")
	v := startVisitors(t, client.Place, vip)
	time.Sleep(300 * time.Millisecond)
	gone := pods[2]
	must(t, gone.Delete())
	deleted := time.Now()
	time.Sleep(2500 * time.Millisecond)
	if n, of, why := v.failed(deleted.Add(time.Second)); n > 0 || of < visitsPerSecond/2 {
		t.Errorf("%d of %d connections failed a second after %s had gone (%v)", n, of, gone.Info.Name, why)
	}
	labtest.Within(t, 2*time.Second, "the log tells that the endpoint rests", func() error {
		return logged(l.Hosts["kubminion1"].Portald.Log(), `msg="endpoint rests"`, gone.IP.String())
	})
}

// logged wants one line of a log to hold all the words.
func logged(log string, words ...string) error {
	for line := range strings.SplitSeq(log, "\n") {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return nil
		}
	}
	return fmt.Errorf("no line with %q in\n%s", words, place.LastLines(log, 10))
}
