// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/l3edge/l3edge/pkg/edge/netns"
	"github.com/l3edge/l3edge/pkg/edge/netns/nstest"
)

// talk opens a UDP flow that goes on from the same port, and returns what asks over it once.
func talk(t *testing.T, from *netns.Handle, at string) func() string {
	t.Helper()
	var c net.Conn
	nstest.Do(t, from, func() (err error) { c, err = net.Dial("udp", at); return err })
	t.Cleanup(func() { c.Close() })
	return func() string {
		_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		_, _ = c.Write([]byte("?"))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil && !strings.Contains(err.Error(), "refused") { // once more: an earlier refusal may have been waiting
			return err.Error()
		}
		return string(buf[:n])
	}
}

// TestFlowsFindTheNewPod: clients that never stop talking reach who has the port now, and others are left alone.
func TestFlowsFindTheNewPod(t *testing.T) {
	w := newWorld(t)
	const dns = `{"hostPort":53,"containerPort":53,"protocol":"UDP"}`
	w.must("ADD", "other/tcp", ports(`{"hostPort":8080,"containerPort":80}`)+withPrev("other")) // from here on the kernel remembers flows
	client, passer := talk(t, w.out, "10.20.30.62:53"), talk(t, w.out, "10.10.10.3:53")
	client() // nobody there: refused
	if got := passer(); got != "other 10.20.30.1" {
		t.Fatalf("a flow to a pod's own address: %q", got)
	}
	flows := func() (out []string) {
		for line := range strings.Lines(nstest.Sh(t, w.node, "conntrack -L -p udp -o id 2>/dev/null")) {
			f := strings.Fields(line)
			if i := slices.IndexFunc(f, func(s string) bool { return strings.HasPrefix(s, "dst=") }); i >= 0 {
				out = append(out, f[i]+" "+f[len(f)-1]) // with its number: a flow that was forgotten and came again has another
			}
		}
		slices.Sort(out)
		return out
	}
	passing := func() string {
		for _, f := range flows() {
			if strings.HasPrefix(f, "dst=10.10.10.3 ") {
				return f
			}
		}
		return "none"
	}
	before := passing()
	if all := strings.Join(flows(), " "); !strings.Contains(all, "dst=10.20.30.62 ") || before == "none" {
		t.Fatalf("the kernel does not remember the two flows: %s", all)
	}
	w.must("ADD", "web", ports(dns)+withPrev("web"))
	if got := client(); got != "web 10.20.30.1" {
		t.Errorf("a client from before the ADD: %q, want web", got)
	}
	w.must("ADD", "web", ports(dns)+withPrev("web")) // repeated
	if got := client(); got != "web 10.20.30.1" {
		t.Errorf("after a repeated ADD: %q, want web", got)
	}
	w.must("DEL", "web", "")
	for _, f := range flows() {
		if strings.HasPrefix(f, "dst=10.20.30.62 ") {
			t.Errorf("DEL left the flow %s", f)
		}
	}
	w.must("ADD", "other", ports(dns)+withPrev("other"))
	if got := client(); got != "other 10.20.30.1" {
		t.Errorf("after the port went to another pod: %q, want other", got)
	}
	if after := passing(); after != before {
		t.Errorf("a flow to the same port of a pod's own address was %q, is %q: it was nobody's to end", before, after)
	}
}

// TestDelDoesNotWait: the kernel frees what DEL took away in its own time, which a child process sits out.
func TestDelDoesNotWait(t *testing.T) {
	w := newWorld(t)
	fastest := map[string]time.Duration{"ADD": time.Hour, "DEL": time.Hour}
	for range 10 {
		for _, verb := range []string{"ADD", "DEL"} {
			start := time.Now()
			w.must(verb, "web", ports(`{"hostPort":80,"containerPort":80}`)+withPrev("web"))
			fastest[verb] = min(fastest[verb], time.Since(start))
		}
		if rules := nstest.Sh(t, w.node, "nft list ruleset"); strings.Contains(rules, addrs["web"]) {
			t.Fatalf("DEL returned with the port still there:\n%s", rules)
		}
	}
	if fastest["DEL"] > 2*fastest["ADD"] {
		t.Errorf("the fastest ADD took %s and the fastest DEL %s, want about the same", fastest["ADD"], fastest["DEL"])
	}
}
